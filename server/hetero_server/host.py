"""The process around an engine: one listener, one compute thread, and what keeps them going."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from hetero_common.agreement.heartbeats import heartbeat_seconds
from hetero_common.records.logs import speak_as
from hetero_server.compute_thread import ComputeThread
from hetero_server.monitoring.monitor import Monitor
from hetero_server.monitoring.serving import page
from hetero_server.net.health import keep_true
from hetero_server.net.listener import Listener
from hetero_server.net.predictions import PredictionService
from hetero_server.net.service import HeteroSplitService
from hetero_server.run.engine import Engine
from hetero_server.run.served_model import ServedModel
from hetero_server.runner import Runner
from hetero_server.settings import ServerSettings
from hetero_server.stragglers import Stragglers

log = logging.getLogger(__name__)

_FAREWELL_SECONDS = 5.0


class Host:
    """Listens from the start; what takes long to load is loaded in the compute thread meanwhile.

    Args:
        settings: Of the process.
        listener: Open, and serving nothing yet.
        compute: Where everything is computed.
        monitor: Told what happens.
        page: URL of what the monitor shows; None if it is not shown.
    """

    def __init__(
        self,
        settings: ServerSettings,
        listener: Listener,
        compute: ComputeThread,
        monitor: Monitor,
        page: str | None,
    ) -> None:
        self.compute = compute
        self.monitor = monitor
        self._page = page
        self._settings = settings
        self._listener = listener

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: ServerSettings) -> AsyncIterator[Host]:
        """Listen as the settings say, as long as the block lasts.

        Raises:
            SettingsError: The address cannot be listened on, or may not like this.
        """
        monitor = Monitor(settings.metrics_per_client)
        listener = await Listener.open(
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
                is_well=lambda: listener.health.is_serving,
                tokens=settings.http_tokens,
                certs=settings.certs,
                insecure=settings.insecure,
            ) as url:
                yield cls(settings, listener, compute, monitor, url)
        finally:
            await listener.close()
            compute.close()

    @property
    def address(self) -> str:
        """HOST:PORT, with the port that was found free if any would do."""
        return f"{self._settings.listen.rpartition(':')[0]}:{self._listener.port}"

    @contextlib.asynccontextmanager
    async def training(self, engine: Engine, run_id: str) -> AsyncIterator[Runner]:
        """Take the calls of a run's clients; in the block somebody runs the runner."""
        settings = self._settings
        self.monitor.watch(engine, run_id, settings.strategy)
        runner = Runner(
            engine,
            self.compute,
            stragglers=Stragglers(engine, settings.patience, settings.quorum),
            idle_timeout=settings.idle_timeout,
            monitor=self.monitor,
        )
        service = HeteroSplitService(
            engine,
            run_id,
            self.compute,
            self.monitor,
            runner.changed,
            heartbeat=heartbeat_seconds(settings.stall_timeout),
            limits=settings,
            patience=settings.patience,
        )
        async with self._open_to(service, engine.plan.rounds):
            yield runner

    @contextlib.asynccontextmanager
    async def serving(self, model: ServedModel, run_id: str) -> AsyncIterator[None]:
        """Answer predictions with a finished run's model, as long as the block lasts."""
        settings = self._settings
        self.monitor.watch(model, run_id, settings.strategy)
        service = PredictionService(model, self.compute, self.monitor, settings, settings.patience)
        async with self._open_to(service, model.plan.rounds):
            yield

    @contextlib.asynccontextmanager
    async def _open_to(self, service: PredictionService, rounds: int) -> AsyncIterator[None]:
        self._listener.serve(service)
        speak_as("server", rounds)
        health = asyncio.create_task(
            keep_true(self._listener.health, self.compute, self._settings.stall_timeout)
        )
        print(f"listening on {self.address}", flush=True)
        if self._page is not None:
            log.info("page and metrics: %s", self._page)
        try:
            yield
        finally:
            health.cancel()
            await self._listener.close(_FAREWELL_SECONDS)
