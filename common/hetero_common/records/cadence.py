"""How often something is written down: whether it is long enough ago."""

from __future__ import annotations

import time
from collections.abc import Callable


class Cadence:
    """Tells whether the last time is so many seconds ago; the first one counts from now.

    Args:
        seconds: What lies between two times, at least.
        clock: Seconds from any origin.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._begun = clock()

    @property
    def is_due(self) -> bool:
        """Whether the last time is long enough ago."""
        return self._clock() - self._begun >= self._seconds

    def begin(self) -> None:
        """Count from now."""
        self._begun = self._clock()
