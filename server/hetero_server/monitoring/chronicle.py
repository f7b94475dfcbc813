"""What a run has told so far, kept in bounded memory: its last numbers, its curves, its events."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hetero_common.records.events import CheckpointWritten, Evaluated, Event, Resumed, RoundClosed
from hetero_common.records.history import Recorded
from hetero_common.records.rendering import in_words
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
        self.rounds: dict[str, RoundClosed] = {}
        self.evaluations: dict[str, Evaluated] = {}
        self.accuracies = Series(
            ("exit_accuracy", "server_accuracy", "threshold_accuracy", "offload_share")
        )
        self.losses = Series(("exit_loss", "server_loss"))
        self.saved_at: float | None = None
        self._clock = clock
        self._closings: deque[tuple[float, int]] = deque(maxlen=_PACE_ROUNDS)
        self._trained: dict[str, deque[tuple[float, int]]] = {}

    def observe(self, event: Event) -> None:
        """An event of now."""
        self._note(self._clock(), event)

    def replay(self, recorded: Iterable[Recorded]) -> None:
        """Events that a process before this one has recorded."""
        for each in recorded:
            self._note(each.time, each.event)
        self._closings.clear()  # how fast the run was then says nothing of now
        self._trained.clear()

    def seconds_per_round(self) -> float | None:
        """Mean seconds of the last rounds, evaluations included; None before there are two."""
        if len(self._closings) < 2:
            return None
        (since, first), (until, last) = self._closings[0], self._closings[-1]
        return (until - since) / (last - first) if last > first else None

    def seconds_left(self, rounds: int) -> float | None:
        """Return the seconds until the last of so many rounds has closed, at that pace."""
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

    def _note(self, now: float, event: Event) -> None:
        match event:
            case RoundClosed():
                self._note_round(now, event)
            case Evaluated():
                self.evaluations[event.client] = event
                self.accuracies.add(event.round, event.cut_layer or 0, vars(event))
            case CheckpointWritten(failed=None):
                self.saved_at = now
            case Resumed(round_):
                self.accuracies.forget_after(round_)
                self.losses.forget_after(round_)
        text = in_words(event)
        if text:
            self._tell(Happening(now, event.kind, text))

    def _tell(self, happening: Happening) -> None:
        """Keep a happening; of checkpoints in a row only the last, lest they push out all else."""
        before = self.happenings[-1].kind if self.happenings else ""
        if before == happening.kind == "checkpoint":
            self.happenings.pop()
        self.happenings.append(happening)

    def _note_round(self, now: float, event: RoundClosed) -> None:
        self.rounds[event.client] = event
        self.losses.add(event.round, event.cut_layer or 0, vars(event))
        trained = self._trained.setdefault(event.client, deque(maxlen=_RATE_ROUNDS))
        trained.append((now, event.samples))
        if not self._closings or self._closings[-1][1] != event.round:
            self._closings.append((now, event.round))
