"""What SIGTERM and SIGINT do to a client."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType

log = logging.getLogger(__name__)

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class _Stopped(BaseException):
    """Not an Exception, so that nothing on the way out takes it for a failure."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """In the block the first signal leaves it, and a second one ends the process at once.

    A client keeps its state at the end of each round, and goes on from there even after a kill: so
    there is nothing to finish first, but connections and files to close.
    """

    def stop(number: int, _: FrameType | None) -> None:
        for each in _NUMBERS:
            signal.signal(each, signal.SIG_DFL)
        raise _Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in _NUMBERS}
    try:
        yield
    except _Stopped as stopped:
        log.warning("stopped by %s: start it again with the same flags, and it goes on", stopped)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
