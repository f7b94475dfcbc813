"""What is left of a finished run in this repository: enough for its row, curves and report.

Settings and agreement are kept as they are; of the events, those of rounds that were tested, and
from tests before the last no more than accuracies. Weights are not kept.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hetero_common.records.history import read_records
from hetero_common.records.rundir import METRICS_FILE, PLAN_FILE, SETTINGS_FILE

_OF_LAST_TEST = ("curve", "exit_class_accuracy", "server_class_accuracy")


def keep(run: Path, record: Path) -> None:
    """Keep what matters of a run directory as another one, in place of what was there."""
    unfinished = record.with_name(f"{record.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name in (PLAN_FILE, SETTINGS_FILE):
        shutil.copy(run / name, unfinished / name)
    events = read_records(run)
    tested = {event["round"] for event in events if event["event"] == "evaluation"}
    last = max(tested)
    lines = [
        json.dumps(_bare(event, event.get("round") == last))
        for event in events
        if event["event"] != "round" or event["round"] in tested
    ]
    (unfinished / METRICS_FILE).write_text("\n".join([*lines, ""]), encoding="utf-8")
    shutil.rmtree(record, ignore_errors=True)
    unfinished.rename(record)


def _bare(event: dict[str, Any], is_last: bool) -> dict[str, Any]:
    if event["event"] != "evaluation" or is_last:
        return event
    return {name: value for name, value in event.items() if name not in _OF_LAST_TEST}
