"""What a run directory has recorded, read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetero_common.errors import SettingsError
from hetero_common.records.events import (
    DeviceEvaluated,
    DeviceJoined,
    DeviceRound,
    Evaluated,
    Event,
    Left,
    LocalEvaluated,
    LocalRound,
    Released,
    Resumed,
    RoundClosed,
    Started,
    WholeEvaluated,
    WholeRound,
    from_record,
)
from hetero_common.records.rundir import METRICS_FILE

_LAST_SECOND = 253402300799.0  # of the year 9999
_OF_A_ROUND = (
    *(RoundClosed, DeviceRound, LocalRound, WholeRound),
    *(Evaluated, DeviceEvaluated, LocalEvaluated, WholeEvaluated),
    *(Released, Left),
)


@dataclass(frozen=True)
class Recorded:
    """An event, and when it was.

    Attributes:
        time: Seconds since 1970.
        event: What it was.
    """

    time: float
    event: Event


@dataclass(frozen=True)
class History:
    """All that a run has recorded, as far as it can be read.

    What a kill has cut short is left out, and what this version does not know.

    Attributes:
        recorded: The events in the order in which they were written.
        damage: What was changed after it was written, in a sentence; empty if nothing was.
    """

    recorded: Sequence[Recorded]
    damage: str = ""

    def whole(self) -> Sequence[Recorded]:
        """All events.

        Raises:
            SettingsError: A line was changed after it was written.
        """
        if self.damage:
            raise SettingsError(self.damage)
        return self.recorded


def read_history(run: Path) -> History:
    """Read what a run directory has recorded.

    Raises:
        SettingsError: There is nothing to read.
    """
    recorded: list[Recorded] = []
    damage = ""
    records, torn = _read(run)
    if torn is not None:
        damage = f"line {torn} of {run / METRICS_FILE} is damaged: nothing can be told from it"
    for record in records:
        try:
            recorded += parsed([record])
        except (ValueError, KeyError, TypeError):
            damage = damage or (
                f"{run / METRICS_FILE} is damaged: an event lacks what docs/runs.md says it has"
            )
    return History(recorded, damage)


def parsed(records: Iterable[Mapping[str, Any]]) -> list[Recorded]:
    """The events of lines of metrics.jsonl; kinds that this version does not know are left out.

    Raises:
        ValueError: A line lacks what such an event has.
    """
    events = [(_time(record), from_record(record)) for record in records]
    return [Recorded(time, event) for time, event in events if event is not None]


def read_records(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl as they are, for scripts that look at single fields.

    Raises:
        SettingsError: There is nothing to read.
    """
    return _read(run)[0]


def last_run(recorded: Iterable[Recorded]) -> list[Recorded]:
    """The events of the last run, of a directory that was used for several."""
    own: list[Recorded] = []
    run = None
    for each in recorded:
        if isinstance(each.event, Started | DeviceJoined) and each.event.run != run:
            run, own = each.event.run, []
        own.append(each)
    return own


def surviving(recorded: Iterable[Recorded]) -> list[Recorded]:
    """The events that count: those of rounds that a resumed server has taken back do not."""
    left: list[Recorded] = []
    for each in recorded:
        if isinstance(each.event, Resumed):
            after = each.event.round
            left = [old for old in left if not _is_later(old.event, after)]
        left.append(each)
    return left


def _is_later(event: Event, round_: int) -> bool:
    return isinstance(event, _OF_A_ROUND) and event.round > round_


def _time(record: Mapping[str, Any]) -> float:
    seconds = float(record["time"])
    if not 0 <= seconds <= _LAST_SECOND:  # NaN neither
        raise ValueError("it is no time that can be")
    return seconds


def _read(run: Path) -> tuple[list[dict[str, Any]], int | None]:
    """The whole lines, and the number of the first one that was changed, if one was."""
    path = run / METRICS_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{path} cannot be read: name a whole run directory") from None
    lines = text.split("\n")  # the last one is empty, or cut short
    records: list[dict[str, Any]] = []
    torn = damaged = None
    for number, line in enumerate(lines[:-1], start=1):
        record = _record(line)
        # A process that takes up the directory begins a new line behind one that was cut short.
        if torn is not None and (record is None or not _begins_process(record)):
            damaged = damaged or torn
        torn = None
        if record is None:
            torn = number
        else:
            records.append(record)
    return records, damaged or torn


def _begins_process(record: dict[str, Any]) -> bool:
    """Whether a process writes this first: a client joins, all others start."""
    return record["event"] == "started" or (record["event"] == "joined" and "run" in record)


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("event"), str) else None
