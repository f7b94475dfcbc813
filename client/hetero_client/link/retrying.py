"""How long to wait before trying again to reach a server."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

_FIRST, _LONGEST = 1.0, 20.0  # seconds


def pauses(patience: float) -> Iterator[float]:
    """Seconds to wait before each new try, until `patience` seconds have passed since the first.

    They grow exponentially and are drawn at random below that, so that the clients of a server that
    comes back do not all call at once.
    """
    deadline = time.monotonic() + patience
    longest = _FIRST
    while (left := deadline - time.monotonic()) > 0:
        yield min(left, random.uniform(0, longest))
        longest = min(2 * longest, _LONGEST)
