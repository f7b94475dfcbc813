"""What has arrived on a training stream, for the thread that trains."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from hetero_common.agreement.control import Directive
from hetero_common.errors import HeteroError
from hetero_common.tensors.codec import Payload


@dataclass(frozen=True)
class Outgoing:
    """A batch that is on its way: activation (B, ...), encoded, and labels (B,)."""

    round: int
    step: int
    payload: Payload
    labels: Tensor


class Inbox:
    """Filled by the thread that reads the stream, emptied by the one that trains.

    Every wait ends with the stream's error, once that has failed.

    Args:
        credits: Batches that may be unacknowledged.
    """

    def __init__(self, credits: int = 0) -> None:
        self._changed = threading.Condition()
        self._credits = credits
        self._window: dict[tuple[int, int], Outgoing] = {}
        self._directives: deque[Directive] = deque()
        self._answers: dict[tuple[int, int], Payload | None] = {}
        self._error: HeteroError | None = None
        self._heard = time.monotonic()

    # The thread that reads.

    def direct(self, directive: Directive) -> None:
        """A directive has arrived."""
        with self._changed:
            self._directives.append(directive)
            self._changed.notify_all()

    def acknowledge(self, round_: int, step: int, feedback: Payload | None) -> None:
        """A batch is acknowledged: its credit comes back, with what the server returns."""
        with self._changed:
            if self._window.pop((round_, step), None) is not None:
                self._answers = {(round_, step): feedback}  # whoever waits, waits for the last one
            self._changed.notify_all()

    def fail(self, error: HeteroError) -> None:
        """The stream has ended; the first reason is the one that counts."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def hear(self) -> None:
        """Something has arrived, whatever it is."""
        self._heard = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since something has arrived."""
        return time.monotonic() - self._heard

    # The thread that trains.

    def next_directive(self) -> Directive:
        """Wait for a directive."""
        with self._changed:
            self._wait(lambda: self._directives)
            return self._directives.popleft()

    @property
    def has_directive(self) -> bool:
        """Whether the server wants something else by now."""
        return bool(self._directives)

    def take_credit(self, batch: Outgoing) -> None:
        """Wait until one more batch may be sent; it is this one."""
        with self._changed:
            self._wait(lambda: len(self._window) < self._credits)
            self._window[batch.round, batch.step] = batch

    def drain(self) -> None:
        """Wait until every batch is acknowledged."""
        with self._changed:
            self._wait(lambda: not self._window)

    def feedback(self, round_: int, step: int) -> Payload | None:
        """Wait for what the server returns of a step; None if it came too late for that."""
        with self._changed:
            self._wait(lambda: (round_, step) in self._answers)
            return self._answers.pop((round_, step))

    def is_under_way(self, round_: int, step: int) -> bool:
        """Whether this batch is not acknowledged yet."""
        with self._changed:
            return (round_, step) in self._window

    def unacknowledged(self) -> list[Outgoing]:
        """The batches on their way, in the order of their steps."""
        with self._changed:
            return [self._window[key] for key in sorted(self._window)]

    def carry_over(self, batches: list[Outgoing]) -> None:
        """These were on their way when the last stream broke, and count here."""
        with self._changed:
            self._window = {(batch.round, batch.step): batch for batch in batches}

    def _wait(self, satisfied: Callable[[], object]) -> None:
        self._changed.wait_for(lambda: satisfied() or self._error is not None)
        if not satisfied() and self._error is not None:
            raise self._error
