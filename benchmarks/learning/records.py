"""What is left of finished runs in this repository: enough for their rows, curves and reports.

One file for each set of data and budget, `measured/cifar10-small.jsonl`, with a run in each line:

    {"id": "default/seed-0", "row": "default", "seed": 0, "settings": {...}, "events": [...]}

The settings are all that the result depends on, as they were then: a default that changes later
makes no other run of it. One that did not exist then has its default of today, which is what the
run had. The events are those of metrics.jsonl, without rounds that were not tested, and of tests
before the last without what only reports of a finished run show. Weights are not kept.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hetero_common.agreement.plan import Plan
from hetero_common.records.history import parsed, read_records
from hetero_common.records.rundir import SETTINGS_FILE, write_whole
from hetero_common.settings import first_difference
from hetero_lab.reading.reader import run_from
from hetero_lab.reading.run import Run
from hetero_lab.resuming import decisive
from hetero_lab.settings import SimulationSettings

_OF_LAST_TEST = ("curve", "exit_class_accuracy", "server_class_accuracy")


@dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        id: Names it in its file.
        row: Name of its row in tables.
        seed: Of the run.
        settings: What its result depends on, by names.
        events: What it has recorded, as objects of metrics.jsonl.
    """

    id: str
    row: str
    seed: int
    settings: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, row: str, seed: int, run: Path) -> Record:
        """What is to be kept of a run directory."""
        settings = decisive((run / SETTINGS_FILE).read_text(encoding="utf-8"))
        return cls(record_id(row, seed), row, seed, settings, list(_kept(read_records(run))))

    def difference(self, settings: Mapping[str, Any]) -> str | None:
        """The first setting in which the run differs from these, in words; None if it is one."""
        name = first_difference(SimulationSettings, self.settings, settings)
        if name is None:
            return None
        asked, had = settings.get(name), self.settings.get(name)
        return f"--{name.replace('_', '-')} was {had} when it was measured, and is {asked} now"

    def run(self, folder: str) -> Run:
        """The run as reports see it; `folder` is the first part of its name there."""
        agreed = {k: v for k, v in self.settings.items() if k in Plan.model_fields}
        name = f"{folder}/{self.row} seed {self.seed}"
        return run_from(name, Plan.model_validate(agreed), self.settings, parsed(self.events))


class Records:
    """The records of one file, by their ids.

    Args:
        file: Made with the first record.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                record = Record(**json.loads(line))
                self._records[record.id] = record

    def find(self, row: str, seed: int) -> Record | None:
        """The record of a row with this seed, if there is one."""
        return self._records.get(record_id(row, seed))

    def keep(self, record: Record) -> None:
        """Add a record, in place of the one that had its id."""
        with self._lock:
            self._records[record.id] = record
            lines = [json.dumps(asdict(self._records[key])) for key in sorted(self._records)]
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, "\n".join([*lines, ""]).encode())


def record_id(row: str, seed: int) -> str:
    """`default, dirichlet 0.1` with seed 0 is `default-dirichlet-0.1/seed-0`."""
    slug = re.sub(r"[^a-z0-9.]+", "-", row.lower()).strip("-")
    return f"{slug}/seed-{seed}"


def _kept(events: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    tested = {event["round"] for event in events if event["event"] == "evaluation"}
    last = max(tested)
    for event in events:
        if event["event"] == "evaluation" and event["round"] != last:
            yield {name: value for name, value in event.items() if name not in _OF_LAST_TEST}
        elif event["event"] != "round" or event["round"] in tested:
            yield event
