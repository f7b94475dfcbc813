"""What was out of the ordinary in a run, told in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, Field

from hetero_lab.reading.history import Event
from hetero_lab.reading.run import Incident


class _Told(BaseModel, frozen=True, allow_inf_nan=False):
    """Any of the events below, as far as it matters here."""

    event: str
    time: float
    round: Annotated[int, Field(ge=-1)] | None = None
    client: str | None = None
    why: str = ""
    statistic: str = ""
    value: float = 0.0
    usual: float = 0.0
    base: int | None = None
    state: str = ""
    failed: str | None = None


_KINDS = frozenset(
    {
        *("resumed", "released", "returned", "rejoined", "left_out", "quarantined"),
        *("left", "checkpoint"),
    }
)


def read_incidents(events: Iterable[Event], started: float) -> tuple[Incident, ...]:
    """In the order they happened.

    Raises:
        ValueError: An event lacks what such an event has.
    """
    told = [_Told.model_validate(event) for event in events if event["event"] in _KINDS]
    return tuple(
        Incident(max(0.0, each.time - started), each.round, each.client, what)
        for each in told
        if (what := _in_words(each))
    )


def _in_words(told: _Told) -> str:
    """Empty for what is no incident."""
    match told.event:
        case "resumed":
            return f"the server was started again and went on from {_end_of(told.round)}"
        case "released":
            return f"the round went on without this client: {told.why}"
        case "returned":
            return f"this client came back and {_going_on(told.base)}"
        case "rejoined":
            return f"it lost the server, was connected again and {_going_on(told.base)}"
        case "left_out":
            return f"what this client pushed is in no average: {_excess(told)}"
        case "quarantined":
            return f"this client was sent away for the rest of the run: {_excess(told)}"
        case "left" if told.state == "STALE":
            return "this client lost its connection"
        case "left" if told.state == "EVICTED":
            return "this client was sent away, or a newer process has its id"
        case "checkpoint" if told.failed is not None:
            return f"the run could not be saved: {told.failed}"
    return ""


def _end_of(round_: int | None) -> str:
    return "its beginning" if round_ is None or round_ < 0 else f"the end of round {round_ + 1}"


def _going_on(base: int | None) -> str:
    return "started anew" if base is None else f"went on from {_end_of(base)}"


def _excess(told: _Told) -> str:
    name = told.statistic.replace("_", " ")
    return f"{name} of {told.value:.3g} where {told.usual:.3g} is usual"
