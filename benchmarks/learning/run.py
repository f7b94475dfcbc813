"""The tables of docs/results.md: many seeded runs of hetero-sim, and their means and deviations.

python benchmarks/learning/run.py baselines --zip cifar10.zip

`tables.yaml` says what a table's runs are. A run that is finished is not repeated, so that an
interrupted table goes on where it stopped. With --tune the test images are not touched: runs are
tested on training images that none of them trains on.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from subsets import subset

from hetero_common.settings import load
from hetero_lab.report.grouping import group
from hetero_lab.report.reading import read_run
from hetero_lab.report.records import Run
from hetero_lab.report.tables import Table, results_table
from hetero_lab.settings import SimulationSettings

TABLES = Path(__file__).with_name("tables.yaml")


@dataclass(frozen=True)
class Repetition:
    """One run of a table.

    Attributes:
        row: Name of the row in the table.
        config: Its settings as a file of hetero-sim; beside it is what the run has printed.
        rounds: How many it has.
        folder: Its run directory, once it is finished.
    """

    row: str
    config: Path
    rounds: int
    folder: Path

    def ensure(self) -> Run:
        """Do it, unless it is finished; what it has recorded."""
        if not self.folder.exists():
            self._train()
        return read_run(self.folder)

    def _train(self) -> None:
        unfinished = self.folder.with_name(f"{self.folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [sys.executable, "-m", "hetero_lab", "--config", str(self.config)]
        command += ["--rounds", str(self.rounds)]
        printed = self.folder.with_name(f"{self.folder.name}.log")
        with printed.open("w") as log:
            done = subprocess.run([*command, "--run-dir", str(unfinished)], stdout=log, stderr=log)
        if done.returncode:
            raise SystemExit(f"{self.folder.name} failed: see {printed}")
        unfinished.rename(self.folder)
        print(f"{self.folder.name} is done", flush=True)


def main() -> None:
    """Do what is missing of a table, then print it."""
    arguments = _arguments()
    described = yaml.safe_load(TABLES.read_text())
    repetitions = list(_repetitions(described, arguments))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = list(pool.map(Repetition.ensure, repetitions))
    print(_markdown(results_table(group(runs, [each.row for each in repetitions]))))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="a name of tables.yaml")
    parser.add_argument("--zip", type=Path, required=True, help="the data, as zipped image folder")
    parser.add_argument("--budget", default="small", help="a name of tables.yaml")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--rows", default="", help="only these, separated by slashes")
    parser.add_argument("--tune", action="store_true", help="hold out training images to test on")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    return parser.parse_args()


def _repetitions(
    described: Mapping[str, Any], arguments: argparse.Namespace
) -> Iterator[Repetition]:
    budget = described["budgets"][arguments.budget]
    rows: Mapping[str, Mapping[str, Any]] = described["tables"][arguments.table]
    chosen = arguments.rows.split("/") if arguments.rows else list(rows)
    name = f"{arguments.zip.stem}-{arguments.budget}" + ("-tune" if arguments.tune else "")
    data = subset(
        arguments.zip,
        arguments.out / f"{name}.zip",
        budget["images"],
        held_out=budget["held_out"] if arguments.tune else 0,
    )
    (arguments.out / name).mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds.split(","):
        for row in chosen:
            folder = arguments.out / name / f"{row} seed {seed}"
            config = folder.with_name(f"{folder.name}.yaml")
            own = {**budget["settings"], **rows[row], "seed": int(seed)}
            own["dataset"] = f"folder:{data.resolve()}"
            config.write_text(yaml.safe_dump(own, sort_keys=False))
            settings = load(SimulationSettings, ["--config", str(config)], "hetero-sim")
            yield Repetition(row, config, _rounds(settings, budget), folder)


def _rounds(settings: SimulationSettings, budget: Mapping[str, Any]) -> int:
    """So many that each client sees its images `passes` times."""
    shard = budget["images"] // settings.clients
    steps = int(budget["passes"] * shard) // settings.batch_size
    return max(1, round(steps / settings.plan().steps_for(shard)))


def _markdown(table: Table) -> str:
    rows = (table.headings, ("---",) * len(table.headings), *table.rows)
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", table.caption])


if __name__ == "__main__":
    main()
