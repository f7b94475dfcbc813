"""What has arrived on a training stream, and what is on its way there."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

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


class Condition(AbstractContextManager[Any], Protocol):
    """What `Inbox` takes of a `threading.Condition`."""

    def wait_for(self, predicate: Callable[[], object]) -> object:
        """Wait until it is true."""

    def notify_all(self) -> None:
        """Let whoever waits look again."""


class Inbox:
    """Filled by whoever reads the stream, emptied by the thread that trains.

    Every wait ends with the stream's error, once that has failed.

    Args:
        credits: Batches that may be unacknowledged.
        changed: How the thread that trains waits for what arrives.
    """

    def __init__(self, credits: int = 0, changed: Condition | None = None) -> None:
        self._changed: Condition = changed or threading.Condition()
        self._credits = credits
        self._window: dict[tuple[int, int], Outgoing] = {}
        self._directives: deque[Directive] = deque()
        self._answers: dict[tuple[int, int], Payload | None] = {}
        self._error: HeteroError | None = None
        self._heard = time.monotonic()
        self.bytes_returned = 0
        """Payload of the feedback that was taken out."""

    # Whoever reads the stream.

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
            answer = self._answers.pop((round_, step))
        if answer is not None:
            self.bytes_returned += answer.data.nbytes
        return answer

    def is_under_way(self, round_: int, step: int) -> bool:
        """Whether this batch is not acknowledged yet."""
        with self._changed:
            return (round_, step) in self._window

    def unacknowledged(self) -> list[Outgoing]:
        """The batches on their way, in the order of their steps."""
        with self._changed:
            return [self._window[key] for key in sorted(self._window)]

    def lacking(self, round_: int, first_step: int, next_step: int) -> list[Outgoing] | None:
        """Return the batches to be sent again after a broken stream: those that the server lacks.

        Args:
            round_: The round that goes on.
            first_step: The first step that the server lacks.
            next_step: The first one that has not been sent at all.

        Returns:
            None if the server lacks one that it had acknowledged, and that is gone here.
        """
        held = [batch for batch in self.unacknowledged() if batch.round == round_]
        if first_step < (held[0].step if held else next_step):
            return None
        lacking = [batch for batch in held if batch.step >= first_step]
        self.carry_over(lacking)
        return lacking

    def carry_over(self, batches: Sequence[Outgoing]) -> None:
        """Count these as on their way, and no others."""
        with self._changed:
            self._window = {(batch.round, batch.step): batch for batch in batches}

    def _wait(self, satisfied: Callable[[], object]) -> None:
        self._changed.wait_for(lambda: satisfied() or self._error is not None)
        if not satisfied() and self._error is not None:
            raise self._error
