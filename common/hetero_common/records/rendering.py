"""Events in words, for the page of a server and for reports alike."""

from __future__ import annotations

from hetero_common.records.events import (
    CheckpointWritten,
    DeviceJoined,
    Event,
    Finished,
    Joined,
    Left,
    LeftOut,
    QuarantineEntered,
    Rejoined,
    Released,
    Resumed,
    Returned,
    Started,
)

_DEPARTURES = {
    "LEFT": "has left",
    "STALE": "lost its connection, and may come back",
    "EVICTED": "was sent away, or a newer process has its id",
}


def in_words(event: Event, client: str = "") -> str:
    """One sentence without a full stop; empty for what is told in numbers.

    Args:
        event: What was recorded.
        client: What its client is called, by default by its id.
    """
    who = client or getattr(event, "client", "") or "the client"
    match event:
        case Started(run):
            return f"the run {run} has started"
        case (
            Joined(cut_layer=cut_layer, shard_size=size)
            | DeviceJoined(cut_layer=cut_layer, shard_size=size)
        ):
            return f"{who} joined with cut layer {cut_layer} and {size or 0:,} images"
        case Returned(base=base):
            return f"{who} came back and {_going_on(base)}"
        case Rejoined(base):
            return f"{who} lost the server, was connected again and {_going_on(base)}"
        case Left(state=state, reason=reason):
            if reason is not None:
                return f"{who} was sent away ({reason})"
            return f"{who} {_DEPARTURES.get(state, f'is {state.lower()}')}"
        case Released(round=round_, why=why):
            return f"round {round_ + 1} goes on without {who}: {why}"
        case LeftOut(round=round_):
            return f"what {who} pushed is in no average of round {round_ + 1}: {_excess(event)}"
        case QuarantineEntered():
            return f"{who} was sent away for the rest of the run: {_excess(event)}"
        case CheckpointWritten(failed=str() as failed):
            return f"the run could not be saved: {failed}"
        case CheckpointWritten(round_):
            return f"the run was saved {_after(round_)}"
        case Resumed(round_):
            return f"the server was started again and went on from {_end_of(round_)}"
        case Finished(rounds):
            return f"all {rounds} rounds are done"
    return ""


def _after(round_: int) -> str:
    return "before its first round" if round_ < 0 else f"after round {round_ + 1}"


def _end_of(round_: int) -> str:
    return "its beginning" if round_ < 0 else f"the end of round {round_ + 1}"


def _going_on(base: int | None) -> str:
    return "started anew" if base is None else f"went on from {_end_of(base)}"


def _excess(event: LeftOut | QuarantineEntered) -> str:
    name = event.statistic.replace("_", " ")
    return f"{name} of {event.value:.3g} where {event.usual:.3g} is usual"
