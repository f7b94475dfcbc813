"""The process around an engine: one front, one compute thread, and what keeps them going."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from hetero_common.records.logs import speak_as
from hetero_server.monitoring.monitor import Monitor
from hetero_server.monitoring.serving import page
from hetero_server.net.health import keep_true
from hetero_server.net.listener import Front
from hetero_server.net.service import HeteroSplitService
from hetero_server.run.engine import Engine
from hetero_server.runner import ComputeThread, Runner
from hetero_server.settings import ServerSettings
from hetero_server.stragglers import Attendance

log = logging.getLogger(__name__)

_FAREWELL_SECONDS = 5.0


class Host:
    """Listens from the start; what takes long to load is loaded in the compute thread meanwhile.

    Args:
        settings: Of the process.
        front: Open, and serving nothing yet.
        compute: Where everything is computed.
        monitor: Told what happens.
        page: URL of what the monitor shows; None if it is not shown.
    """

    def __init__(
        self,
        settings: ServerSettings,
        front: Front,
        compute: ComputeThread,
        monitor: Monitor,
        page: str | None,
    ) -> None:
        self.compute = compute
        self.monitor = monitor
        self._page = page
        self._settings = settings
        self._front = front

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: ServerSettings) -> AsyncIterator[Host]:
        """Listen as the settings say, as long as the block lasts.

        Raises:
            SettingsError: The address cannot be listened on, or may not like this.
        """
        monitor = Monitor(settings.metrics_per_client)
        front = await Front.open(
            settings.listen,
            insecure=settings.insecure,
            certs=settings.certs,
            tokens=settings.tokens,
            reflect=settings.reflection,
            limits=settings,
            on_refusal=monitor.metrics.refused,
        )
        compute = ComputeThread()
        try:
            async with page(
                monitor,
                settings.http,
                is_well=lambda: front.health.is_serving,
                tokens=settings.http_tokens,
                certs=settings.certs,
                insecure=settings.insecure,
            ) as url:
                yield cls(settings, front, compute, monitor, url)
        finally:
            await front.close()
            compute.close()

    @property
    def address(self) -> str:
        """HOST:PORT, with the port that was found free if any would do."""
        return f"{self._settings.listen.rpartition(':')[0]}:{self._front.port}"

    @contextlib.asynccontextmanager
    async def serving(self, engine: Engine, run_id: str) -> AsyncIterator[Runner]:
        """Take calls for this engine; in the block somebody runs the runner."""
        settings = self._settings
        runner = Runner(
            engine,
            self.compute,
            heartbeat=settings.stall_timeout / 3,
            attendance=Attendance(engine, settings.patience, settings.quorum),
            idle_timeout=settings.idle_timeout,
            monitor=self.monitor,
        )
        service = HeteroSplitService(
            runner,
            run_id,
            settings.strategy,
            limits=settings,
            patience=settings.patience,
        )
        self._front.serve(service)
        speak_as("server", engine.plan.rounds)
        health = asyncio.create_task(
            keep_true(self._front.health, self.compute, settings.stall_timeout)
        )
        print(f"listening on {self.address}", flush=True)
        if self._page is not None:
            log.info("page and metrics: %s", self._page)
        try:
            yield runner
        finally:
            health.cancel()
            await self._front.close(_FAREWELL_SECONDS)
