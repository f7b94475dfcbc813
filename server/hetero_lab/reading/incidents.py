"""What was out of the ordinary in a run, told in words."""

from __future__ import annotations

from collections.abc import Iterable

from hetero_common.records.events import (
    CheckpointWritten,
    Event,
    Left,
    LeftOut,
    QuarantineEntered,
    Rejoined,
    Released,
    Resumed,
    Returned,
)
from hetero_common.records.history import Recorded
from hetero_common.records.rendering import in_words
from hetero_lab.reading.run import Incident


def read_incidents(recorded: Iterable[Recorded], started: float) -> tuple[Incident, ...]:
    """The incidents of a run, in the order in which they happened.

    Args:
        recorded: What was recorded of the run.
        started: When it began, in seconds since 1970.
    """
    return tuple(
        Incident(
            max(0.0, each.time - started),
            getattr(each.event, "round", None),
            getattr(each.event, "client", None),
            in_words(each.event, "this client"),
        )
        for each in recorded
        if _is_incident(each.event)
    )


def _is_incident(event: Event) -> bool:
    match event:
        case Resumed() | Released() | Returned() | Rejoined() | LeftOut() | QuarantineEntered():
            return True
        case Left(state=state):
            return state != "LEFT"
        case CheckpointWritten(failed=failed):
            return failed is not None
    return False
