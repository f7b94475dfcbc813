"""The tables of docs/results.md: many seeded runs of hetero-sim, and their means and deviations.

python benchmarks/learning/run.py baselines --zip cifar10.zip

`tables.yaml` says what a table's runs are. What was measured is kept in `measured/` (records.py); a
run that is there, of the same settings, is not repeated, and one that was interrupted is gone on
with. Whoever changes what a method does deletes its records. Without --zip the table is printed of
what there is; why a row has none goes to standard error. With --tune the test images are not
touched: runs are tested on training images that none of them trains on.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from records import Record, Records, record_id
from subsets import subset

from hetero_common.records.checkpoints import CHECKPOINTS
from hetero_common.records.rundir import SETTINGS_FILE
from hetero_common.settings import as_yaml, first_difference, load
from hetero_lab.methods import METHODS
from hetero_lab.reading.grouping import group
from hetero_lab.reading.run import Run
from hetero_lab.report.making import compare
from hetero_lab.report.tables import Table, results_table
from hetero_lab.resuming import decisive
from hetero_lab.settings import SimulationSettings

TABLES = Path(__file__).with_name("tables.yaml")
MEASURED = Path(__file__).with_name("measured")


@dataclass(frozen=True)
class Repetition:
    """One run of a table.

    Attributes:
        row: Name of the row in the table.
        seed: Of the run.
        flags: Of hetero-sim.
        folder: Its run directory; beside it is what it has printed.
        records: Where it is kept once it is finished.
    """

    row: str
    seed: int
    flags: Sequence[str]
    folder: Path
    records: Records

    def ensure(self) -> Run:
        """Do it, unless it is finished; what it has recorded."""
        if self.lacking() is not None:
            self._train()
        record = self.records.find(self.row, self.seed)
        assert record is not None, "it was just kept"
        return record.run(self.folder.parent.name)

    def lacking(self) -> str | None:
        """Why there is no record of these very settings; None if there is one."""
        record = self.records.find(self.row, self.seed)
        return "it is not measured" if record is None else record.difference(self._settings())

    def _settings(self) -> Mapping[str, Any]:
        given = load(SimulationSettings, self.flags, "hetero-sim")
        return decisive(as_yaml(METHODS[given.method].adapt(given)))

    def _is_under_way(self) -> bool:
        if not (self.folder / CHECKPOINTS).exists():
            return False
        held = decisive((self.folder / SETTINGS_FILE).read_text())
        return first_difference(SimulationSettings, held, self._settings()) is None

    def _train(self) -> None:
        flags = [*self.flags, "--run-dir", str(self.folder)]
        if self._is_under_way():
            flags = ["--resume", str(self.folder)]
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        # A row's name may have dots in it.
        printed = self.folder.with_name(f"{self.folder.name}.log")
        printed.parent.mkdir(parents=True, exist_ok=True)
        with printed.open("w") as log:
            done = subprocess.run(
                [sys.executable, "-m", "hetero_lab", *flags], stdout=log, stderr=log
            )
        if done.returncode:
            raise SystemExit(f"{self.folder.name} failed: see {printed}")
        self.records.keep(Record.of(self.row, self.seed, self.folder))
        print(f"{self.folder.name} is done", flush=True)


def main() -> None:
    """Do what is missing of a table, then print it."""
    arguments = _arguments()
    described = yaml.safe_load(TABLES.read_text())
    repetitions = list(_repetitions(described, arguments))
    if arguments.zip is None:
        repetitions = list(_measured(repetitions))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = list(pool.map(Repetition.ensure, repetitions))
    groups = group(runs, [each.row for each in repetitions])
    print(_markdown(results_table(groups)))
    if arguments.report:
        arguments.report.mkdir(parents=True, exist_ok=True)
        for file, data in compare(groups).items():
            (arguments.report / file).write_bytes(data)


def _measured(repetitions: Sequence[Repetition]) -> Iterator[Repetition]:
    """Those that there is a record of; why there is none of the others goes to standard error."""
    for each in repetitions:
        lacking = each.lacking()
        if lacking is None:
            yield each
        else:
            print(f"{each.row}, seed {each.seed}: {lacking}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="a name of tables.yaml")
    parser.add_argument("--data", default="cifar10", help="name of the data")
    parser.add_argument("--zip", type=Path, help="the data, as zipped image folder")
    parser.add_argument("--budget", default="small", help="a name of tables.yaml")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--rows", default="", help="only these, separated by slashes")
    parser.add_argument("--tune", action="store_true", help="hold out training images to test on")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--report", type=Path, help="folder for a report of the table")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    return parser.parse_args()


def _repetitions(
    described: Mapping[str, Any], arguments: argparse.Namespace
) -> Iterator[Repetition]:
    budget = described["budgets"][arguments.budget]
    rows: Mapping[str, Mapping[str, Any]] = described["tables"][arguments.table]
    chosen = arguments.rows.split("/") if arguments.rows else list(rows)
    name = f"{arguments.data}-{arguments.budget}" + ("-tune" if arguments.tune else "")
    data = arguments.out / f"{name}.zip"
    records = Records(MEASURED / f"{name}.jsonl")
    if arguments.zip is not None:
        held_out = budget["held_out"] if arguments.tune else 0
        subset(arguments.zip, data, budget["images"], held_out=held_out)
    for seed in arguments.seeds.split(","):
        for row in chosen:
            own = {**budget["settings"], **rows[row], "seed": int(seed)}
            passes = own.pop("passes", budget["passes"])
            own |= described["data"][arguments.data] | {"dataset": f"folder:{data}"}
            folder = arguments.out / name / record_id(row, int(seed)).replace("/", "-")
            flags = _flags(own | _lengths(own, budget | {"passes": passes}))
            yield Repetition(row, int(seed), flags, folder, records)


def _lengths(own: Mapping[str, Any], budget: Mapping[str, Any]) -> Mapping[str, int]:
    """So many rounds that each client sees its images `passes` times, and when it is tested."""
    settings = load(SimulationSettings, _flags(own), "hetero-sim")
    shard = budget["images"] // settings.clients
    steps = int(budget["passes"] * shard) // settings.batch_size
    rounds = max(1, round(steps / settings.plan().steps_for(shard)))
    return {"rounds": rounds, "eval_every": -(-rounds // budget["tests"])}


def _flags(settings: Mapping[str, Any]) -> list[str]:
    flags: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", str(value)]
    return flags


def _markdown(table: Table) -> str:
    rows = (table.headings, ("---",) * len(table.headings), *table.rows)
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", table.caption])


if __name__ == "__main__":
    main()
