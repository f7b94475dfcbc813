"""Events from their fields, as metrics.jsonl has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hetero_common.records.events import Event, from_record
from hetero_common.records.history import Recorded


def an_event(kind: str, **fields: object) -> Event:
    """The event of this kind with these fields."""
    event = from_record({"event": kind, **fields})
    assert event is not None, f"there is no event {kind}"
    return event


def recorded(records: Iterable[Mapping[str, Any]]) -> list[Recorded]:
    """Lines of metrics.jsonl as what they are read as."""
    events = ((record.get("time", 0.0), from_record(record)) for record in records)
    return [Recorded(time, event) for time, event in events if event is not None]
