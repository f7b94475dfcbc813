"""What a run has told so far, kept in bounded memory: its last numbers, its curves, its events."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hetero_server.monitoring.series import Series

_EVENTS = 100
_PACE_ROUNDS = 50
_RATE_ROUNDS = 20


@dataclass(frozen=True)
class Happening:
    """One event of a run, in words.

    Attributes:
        time: Seconds since 1970.
        kind: As in docs/runs.md.
        text: One sentence.
    """

    time: float
    kind: str
    text: str


class Chronicle:
    """Told every event that a run records.

    Args:
        clock: Tells seconds since 1970.

    Attributes:
        happenings: The newest events in words, oldest first.
        rounds: Of each client, the last `round` event.
        evaluations: Of each client, the last `evaluation` event.
        accuracies: Of exit and server on test images, over the rounds.
        losses: Of exit and server in training, over the rounds.
        saved_at: When the last checkpoint was written; None before the first.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.happenings: deque[Happening] = deque(maxlen=_EVENTS)
        self.rounds: dict[str, Mapping[str, Any]] = {}
        self.evaluations: dict[str, Mapping[str, Any]] = {}
        self.accuracies = Series(
            ("exit_accuracy", "server_accuracy", "threshold_accuracy", "offload_share")
        )
        self.losses = Series(("exit_loss", "server_loss"))
        self.saved_at: float | None = None
        self._clock = clock
        self._closings: deque[tuple[float, int]] = deque(maxlen=_PACE_ROUNDS)
        self._trained: dict[str, deque[tuple[float, int]]] = {}

    def observe(self, event: str, **fields: Any) -> None:
        """An event of now."""
        self._note(self._clock(), event, fields)

    def replay(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Events of a metrics.jsonl, written by a process before this one."""
        for event in events:
            fields = {k: v for k, v in event.items() if k not in ("event", "time", "seconds")}
            with contextlib.suppress(KeyError):  # an older version has recorded it
                self._note(event["time"], event["event"], fields)
        self._closings.clear()  # how fast the run was then says nothing of now
        self._trained.clear()

    def seconds_per_round(self) -> float | None:
        """At the pace of the last rounds, evaluations included; None before there is one."""
        if len(self._closings) < 2:
            return None
        (since, first), (until, last) = self._closings[0], self._closings[-1]
        return (until - since) / (last - first) if last > first else None

    def seconds_left(self, rounds: int) -> float | None:
        """Until the last of so many rounds has closed, at that pace."""
        pace = self.seconds_per_round()
        if pace is None:
            return None
        closed_at, last = self._closings[-1]
        return max(0.0, (rounds - 1 - last) * pace - (self._clock() - closed_at))

    def samples_per_second(self, client_id: str) -> float | None:
        """Images of a client that the server trains on, over its last rounds."""
        trained = list(self._trained.get(client_id, ()))
        if len(trained) < 2:
            return None
        seconds = trained[-1][0] - trained[0][0]
        return sum(samples for _, samples in trained[1:]) / seconds if seconds > 0 else None

    def _note(self, now: float, kind: str, fields: Mapping[str, Any]) -> None:
        match kind:
            case "round":
                self._note_round(now, fields)
            case "evaluation":
                self.evaluations[fields["client"]] = fields
                self.accuracies.add(fields["round"], fields["cut_layer"], fields)
            case "checkpoint" if fields["failed"] is None:
                self.saved_at = now
            case "resumed":
                self.accuracies.forget_after(fields["round"])
                self.losses.forget_after(fields["round"])
        if kind in _TEXTS:
            self._tell(Happening(now, kind, _TEXTS[kind](fields)))

    def _tell(self, happening: Happening) -> None:
        """Of checkpoints in a row the last one is told: they must not push out all else."""
        before = self.happenings[-1].kind if self.happenings else ""
        if before == happening.kind == "checkpoint":
            self.happenings.pop()
        self.happenings.append(happening)

    def _note_round(self, now: float, fields: Mapping[str, Any]) -> None:
        client, round_ = fields["client"], fields["round"]
        self.rounds[client] = fields
        self.losses.add(round_, fields["cut_layer"], fields)
        trained = self._trained.setdefault(client, deque(maxlen=_RATE_ROUNDS))
        trained.append((now, fields["samples"]))
        if not self._closings or self._closings[-1][1] != round_:
            self._closings.append((now, round_))


def _left(fields: Mapping[str, Any]) -> str:
    what = {
        "LEFT": "has left",
        "STALE": "lost its connection, and may come back",
        "EVICTED": "was sent away",
    }
    reason = fields.get("reason")
    return f"{fields['client']} {what[fields['state']]}" + (f" ({reason})" if reason else "")


def _checkpoint(fields: Mapping[str, Any]) -> str:
    if fields["failed"]:
        return f"the run could not be saved: {fields['failed']}"
    if fields["round"] < 0:
        return "the run was saved before its first round"
    return f"the run was saved after round {fields['round'] + 1}"


_TEXTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "started": lambda f: f"the run {f['run']} has started",
    "joined": lambda f: (
        f"{f['client']} joined with cut layer {f['cut_layer']} and {f['shard_size']:,} images"
    ),
    "returned": lambda f: f"{f['client']} is back in round {f['round'] + 1}",
    "left": _left,
    "released": lambda f: f"round {f['round'] + 1} goes on without {f['client']}: {f['why']}",
    "quarantined": lambda f: f"{f['client']} was sent away for outliers ({f['statistic']})",
    "left_out": lambda f: (
        f"the weights of {f['client']} are in no average of round {f['round'] + 1}: "
        f"their {f['statistic']} is far beyond the others'"
    ),
    "checkpoint": _checkpoint,
    "resumed": lambda f: "the run goes on from its last checkpoint",
    "finished": lambda f: f"all {f['rounds']} rounds are done",
}
"""Of each kind of event that is told in words."""
