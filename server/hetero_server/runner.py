"""The engine's work, done in one thread beside the event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from hetero_common.errors import ServerUnreachable
from hetero_common.records.logs import enter_round
from hetero_server.monitoring.monitor import Monitor
from hetero_server.run.engine import Engine
from hetero_server.run.phase import Phase
from hetero_server.stragglers import Attendance

T = TypeVar("T")

_LOOK_SECONDS = 1.0


class ComputeThread:
    """The one thread that torch computes in."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compute")
        self._since: float | None = None

    @property
    def busy_seconds(self) -> float:
        """How long the function that runs there has been running; 0 if there is none."""
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


class Runner:
    """Drives one engine: its state on the event loop, its arithmetic in the compute thread.

    Torch never runs on the event loop, so health checks and other clients are answered while a
    step computes; and it runs in one thread only, so weights need no lock.

    Args:
        engine: The run.
        compute: Where it computes.
        heartbeat: Seconds between two signs of life on a training stream.
        attendance: Sees to it that nobody is waited for in vain; None: everybody is.
        idle_timeout: Seconds without a single client after which the run is over.
        monitor: Told what happens, and how long everything took.
    """

    def __init__(
        self,
        engine: Engine,
        compute: ComputeThread,
        *,
        heartbeat: float = 10.0,
        attendance: Attendance | None = None,
        idle_timeout: float = math.inf,
        monitor: Monitor | None = None,
    ) -> None:
        self.engine = engine
        self.compute = compute
        self.heartbeat = heartbeat
        self.left_off = ""
        """Why the run was left off before its end; empty if it was not."""
        self._attendance = attendance
        self._idle_timeout = idle_timeout
        self.monitor = monitor or Monitor()
        self._changed = asyncio.Event()
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Do whatever the engine has to do, until cancelled."""
        while True:
            work = self.engine.work()
            if work is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            began = time.perf_counter()
            outcome = await self.compute.run(partial(self.engine.perform, work))
            seconds = time.perf_counter() - began
            self.engine.settle(work, outcome)
            self.monitor.performed(work, outcome, seconds)
            enter_round(self.engine.round)
            self.changed()

    async def attend(self) -> None:
        """Look after clients that are missing, until cancelled."""
        clock = asyncio.get_running_loop().time
        somebody = clock()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._attendance is not None:
                self._attendance.look(clock())
                if self._attendance.is_overdue(clock()):
                    self._over.set()
            if self.engine.roster.attached() or self.engine.phase is Phase.WAITING:
                somebody = clock()
            elif clock() - somebody > self._idle_timeout:
                self.leave_off("all clients are gone")
            self.changed()

    def leave_off(self, why: str) -> None:
        """End the run here: it can be resumed from its last checkpoint; clients wait for that."""
        self.left_off = why
        for member in self.engine.roster.attached():
            member.outbox.append(ServerUnreachable("the server was stopped, and may be resumed"))
        self.changed()
        self._over.set()

    def changed(self) -> None:
        """The engine was told something: there may be work."""
        self._changed.set()
        if self.engine.is_over:
            self._over.set()

    async def over(self) -> None:
        """Wait until the last round is done and every client has taken its leave, or deserted.

        One that does neither is waited for as a round would.
        """
        await self._over.wait()
