"""The one thread of the server that torch computes in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class ComputeThread:
    """Runs functions one after another, beside the event loop."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compute")
        self._since: float | None = None

    @property
    def busy_seconds(self) -> float:
        """The seconds that the function there has been running; 0 if there is none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` there and wait for what it returns."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._timed, function)

    def close(self) -> None:
        """Finish what runs and end the thread."""
        self._executor.shutdown()

    def _timed(self, function: Callable[[], T]) -> T:
        self._since = time.monotonic()
        try:
            return function()
        finally:
            self._since = None
