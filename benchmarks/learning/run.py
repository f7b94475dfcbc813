"""The tables of docs/results.md: many seeded runs of hetero-sim, and their means and deviations.

python benchmarks/learning/run.py baselines --zip cifar10.zip

`tables.yaml` says what a table's runs are. A run that is finished is not repeated, so that an
interrupted table goes on where it stopped. With --tune the test images are not touched: runs are
tested on training images that none of them trains on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from subsets import subset

from hetero_common.rundir import read_events
from hetero_lab.settings import SimulationSettings
from hetero_server.presets import PRESETS

TABLES = Path(__file__).with_name("tables.yaml")


@dataclass(frozen=True)
class Run:
    """One run of a table.

    Attributes:
        row: Name of the row in the table.
        settings: Of hetero-sim.
        folder: Its run directory; beside it are its settings and what it printed.
    """

    row: str
    settings: Mapping[str, Any]
    folder: Path

    def ensure(self) -> None:
        """Do it, unless it is finished."""
        if self.is_finished:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        config = self.folder.with_suffix(".yaml")
        config.write_text(yaml.safe_dump(dict(self.settings), sort_keys=False))
        command = [sys.executable, "-m", "hetero_lab", "--config", str(config)]
        with self.folder.with_suffix(".log").open("w") as printed:
            code = subprocess.run(
                [*command, "--run-dir", str(self.folder)], stdout=printed, stderr=printed
            ).returncode
        if code:
            raise SystemExit(f"{self.folder.name} failed: see {self.folder.with_suffix('.log')}")
        print(f"{self.folder.name}: {json.dumps(self.results())}", flush=True)

    @property
    def is_finished(self) -> bool:
        """Whether it has been evaluated after its last round."""
        return bool(self.results())

    def results(self) -> dict[str, float]:
        """Accuracies after the last round, in percent, means over the clients."""
        try:
            events = read_events(self.folder)
        except FileNotFoundError:
            return {}
        last = int(self.settings["rounds"]) - 1
        final = [e for e in events if e["event"] == "evaluation" and e["round"] == last]
        if not final or events[-1]["event"] == "started":
            return {}
        found = {
            "server": [e.get("server_accuracy", e.get("accuracy")) for e in final],
            "exit": [e.get("exit_accuracy") for e in final],
        }
        means = {
            name: 100 * statistics.fmean(value for value in values if value is not None)
            for name, values in found.items()
            if any(value is not None for value in values)
        }
        return means | {"seconds": events[-1]["seconds"]}


def main() -> None:
    """Do what is missing of a table, then print it."""
    arguments = _arguments()
    described = yaml.safe_load(TABLES.read_text())
    runs = list(_runs(described, arguments))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(Run.ensure, runs))
    print(_table(runs))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="a name of tables.yaml")
    parser.add_argument("--zip", type=Path, required=True, help="the data, as zipped image folder")
    parser.add_argument("--budget", default="small", help="a name of tables.yaml")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--rows", default="", help="only these, separated by commas")
    parser.add_argument("--tune", action="store_true", help="hold out training images to test on")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    return parser.parse_args()


def _runs(described: Mapping[str, Any], arguments: argparse.Namespace) -> Iterator[Run]:
    budget = described["budgets"][arguments.budget]
    rows: Mapping[str, Mapping[str, Any]] = described["tables"][arguments.table]
    chosen = arguments.rows.split(",") if arguments.rows else list(rows)
    name = f"{arguments.zip.stem}-{arguments.budget}" + ("-tune" if arguments.tune else "")
    data = subset(
        arguments.zip,
        arguments.out / f"{name}.zip",
        budget["images"],
        held_out=budget["held_out"] if arguments.tune else 0,
    )
    for seed in arguments.seeds.split(","):
        for row in chosen:
            own = {**budget["settings"], **rows[row], "seed": int(seed)}
            own["dataset"] = f"folder:{data.resolve()}"
            own["rounds"] = _rounds(own, budget)
            yield Run(row, own, arguments.out / name / f"{row} seed {seed}")


def _rounds(own: Mapping[str, Any], budget: Mapping[str, Any]) -> int:
    """So many that each client sees its images `passes` times."""
    settings = SimulationSettings(**{**PRESETS[own.get("preset", "default")], **own})
    shard = budget["images"] // settings.clients
    steps = int(budget["passes"] * shard) // settings.batch_size
    return max(1, round(steps / settings.plan().steps_for(shard)))


def _table(runs: Sequence[Run]) -> str:
    columns = ("server", "exit", "seconds")
    lines = ["| run | n | server % | exit % | s |", "|---|---|---|---|---|"]
    for row in dict.fromkeys(run.row for run in runs):
        found = [run.results() for run in runs if run.row == row]
        cells = (_cell([each[c] for each in found if c in each]) for c in columns)
        lines.append(f"| {row} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    """Mean and sample standard deviation."""
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else ""
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


if __name__ == "__main__":
    main()
