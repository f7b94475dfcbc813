"""What has arrived on the training stream, for the thread that trains."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from hetero_common.codec import Payload
from hetero_common.control import Directive
from hetero_common.errors import HeteroError


class Inbox:
    """Filled by the thread that reads the stream, emptied by the one that trains.

    Every wait ends with the stream's error, once that has failed.

    Args:
        credits: Batches that may be unacknowledged.
    """

    def __init__(self, credits: int = 0) -> None:
        self._changed = threading.Condition()
        self._credits = credits
        self._available = credits
        self._directives: deque[Directive] = deque()
        self._feedback: dict[int, Payload] = {}
        self._error: HeteroError | None = None

    def direct(self, directive: Directive) -> None:
        """A directive has arrived."""
        with self._changed:
            self._directives.append(directive)
            self._changed.notify_all()

    def acknowledge(self, step: int, feedback: Payload | None) -> None:
        """A batch is acknowledged: one credit comes back, with what the server returns."""
        with self._changed:
            if feedback is not None:
                self._feedback[step] = feedback
            self._available += 1
            self._changed.notify_all()

    def fail(self, error: HeteroError) -> None:
        """The stream has ended."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def next_directive(self) -> Directive:
        """Wait for a directive."""
        with self._changed:
            self._wait(lambda: self._directives)
            return self._directives.popleft()

    def take_credit(self) -> None:
        """Wait until one more batch may be sent."""
        with self._changed:
            self._wait(lambda: self._available > 0)
            self._available -= 1

    def drain(self) -> None:
        """Wait until every batch is acknowledged."""
        with self._changed:
            self._wait(lambda: self._available == self._credits)

    def feedback(self, step: int) -> Payload:
        """Wait for what the server returns of a step."""
        with self._changed:
            self._wait(lambda: step in self._feedback)
            return self._feedback.pop(step)

    def _wait(self, satisfied: Callable[[], object]) -> None:
        self._changed.wait_for(lambda: satisfied() or self._error is not None)
        if not satisfied() and self._error is not None:
            raise self._error
