"""The engine's work, done in one thread beside the event loop."""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial

from hetero_common.errors import ServerUnreachable
from hetero_common.records.logs import enter_round
from hetero_server.compute_thread import ComputeThread
from hetero_server.monitoring.monitor import Monitor
from hetero_server.run.engine import Engine
from hetero_server.run.phase import Phase
from hetero_server.stragglers import Stragglers

_LOOK_SECONDS = 1.0


class Runner:
    """Drives one engine: its state on the event loop, its arithmetic in the compute thread.

    Torch never runs on the event loop, so health checks and other clients are answered while a
    step computes; and it runs in one thread only, so weights need no lock.

    Args:
        engine: The run.
        compute: Where it computes.
        stragglers: Sees to it that nobody is waited for in vain; None: everybody is.
        idle_timeout: Seconds without a single client after which the run is over.
        monitor: Told what happens, and how long everything took.
    """

    def __init__(
        self,
        engine: Engine,
        compute: ComputeThread,
        *,
        stragglers: Stragglers | None = None,
        idle_timeout: float = math.inf,
        monitor: Monitor | None = None,
    ) -> None:
        self.engine = engine
        self.compute = compute
        self.left_off = ""
        """Why the run was left off before its end; empty if it was not."""
        self._stragglers = stragglers
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
            if self._stragglers is not None:
                self._stragglers.look(clock())
                if self._stragglers.is_overdue(clock()):
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
