"""How much one client, and all of them together, may ask for."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator

from hetero_common.errors import LimitExceeded

_WINDOW_SECONDS = 60.0


class OpenCalls:
    """Counts the calls that are open at a time.

    Args:
        total: Most of all callers together.
        each: Most of one caller.
    """

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._open: Counter[str] = Counter()
        self._count = 0

    @contextlib.contextmanager
    def one_of(self, caller: str) -> Iterator[None]:
        """Count a call of this caller as long as the block lasts.

        Raises:
            LimitExceeded: It is one too many.
        """
        if self._count >= self._total:
            raise LimitExceeded(
                f"the server takes at most {self._total} calls at a time (its --max-calls): "
                "try again later"
            )
        if self._open[caller] >= self._each:
            raise LimitExceeded(
                f"the server takes at most {self._each} calls of one client at a time (its "
                "--max-calls-per-client)"
            )
        self._count += 1
        self._open[caller] += 1
        try:
            yield
        finally:
            self._count -= 1
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]


class PerMinute:
    """Counts what happens within a minute; the count starts anew with each.

    Args:
        total: Most of all clients together; it bounds the memory of the count, too.
        each: Most of one client.
        clock: Tells seconds.
    """

    def __init__(self, total: int, each: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._each = each
        self._clock = clock
        self._since = clock()
        self._seen: Counter[str] = Counter()
        self._count = 0

    def count(self, client_id: str) -> None:
        """Count one registration.

        Raises:
            LimitExceeded: It is one too many.
        """
        now = self._clock()
        if now - self._since >= _WINDOW_SECONDS:
            self._since, self._count = now, 0
            self._seen.clear()
        if self._count >= self._total:
            raise LimitExceeded(
                f"the server takes at most {self._total} registrations a minute (its "
                "--max-registrations): try again later"
            )
        if self._seen[client_id] >= self._each:
            raise LimitExceeded(
                f"the server takes at most {self._each} registrations of one client a minute (its "
                f"--max-registrations-per-client): do two processes call themselves {client_id}?"
            )
        self._count += 1
        self._seen[client_id] += 1
