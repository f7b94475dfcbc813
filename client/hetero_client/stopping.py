"""What SIGTERM and SIGINT do to a client."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

log = logging.getLogger(__name__)

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_FAREWELL_SECONDS = 10.0
"""How long connections and files may take to close."""


class _Stopped(BaseException):
    """Not an Exception, so that nothing on the way out takes it for a failure."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let the first signal leave the block, and a second one end the process at once.

    A client keeps its state at the end of each round, and goes on from there even after a kill: so
    there is nothing to finish first, but connections and files to close. Whatever cannot be closed
    (a signal may come while gRPC holds a lock of its own) is left as it is after a while.
    """
    name = ""
    is_asked, has_left = threading.Event(), threading.Event()

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal name
        for each in _NUMBERS:
            signal.signal(each, signal.SIG_DFL)
        name = signal.Signals(number).name
        is_asked.set()
        raise _Stopped

    def see_it_leave() -> None:
        is_asked.wait()
        if not has_left.wait(_FAREWELL_SECONDS):
            _say_goodbye(name)
            os._exit(0)

    # It is there before the signal: a handler may have interrupted the start of another thread.
    threading.Thread(target=see_it_leave, daemon=True).start()
    before = {number: signal.signal(number, stop) for number in _NUMBERS}
    try:
        yield
    except _Stopped:
        _say_goodbye(name)
    finally:
        has_left.set()
        is_asked.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_goodbye(name: str) -> None:
    log.warning("stopped by %s: start it again with the same flags, and it goes on", name)
