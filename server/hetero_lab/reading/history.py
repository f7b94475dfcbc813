"""What a run directory has recorded: every event, or nothing at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hetero_common.errors import SettingsError
from hetero_common.records.rundir import METRICS_FILE

Event = dict[str, Any]
"""One object of metrics.jsonl."""


def read_history(run: Path) -> list[Event]:
    """All that a run has recorded; only what a kill cut short is left out.

    Raises:
        SettingsError: There is nothing, or a line was changed after it was written.
    """
    path = run / METRICS_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{path} cannot be read: name a whole run directory") from None
    lines = text.split("\n")  # the last one is empty, or cut short
    events: list[Event] = []
    torn = None
    for number, line in enumerate(lines[:-1], start=1):
        event = _event(line)
        # A process that takes up the directory begins a new line behind one that was cut short.
        if torn is not None and (event is None or not _begins_process(event)):
            break
        if event is None:
            torn = number
        else:
            torn = None
            events.append(event)
    if torn is not None:
        raise SettingsError(f"line {torn} of {path} is damaged: nothing can be told from it")
    return events


def last_run(events: Sequence[Event]) -> list[Event]:
    """The events of the last run, of a directory that was used for several."""
    own: list[Event] = []
    run = None
    for event in events:
        if _begins_process(event) and event.get("run") != run:
            run, own = event.get("run"), []
        own.append(event)
    return own


def _begins_process(event: Event) -> bool:
    """Whether a process writes this first: a client joins, all others start."""
    return event["event"] == "started" or (event["event"] == "joined" and "run" in event)


def _event(line: str) -> Event | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
