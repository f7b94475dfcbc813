"""grpc.health.v1 of this server: whether it can do what it is there for, right now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hetero_common.wire import rpc
from hetero_server.compute_thread import ComputeThread

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


class Health(health_pb2_grpc.HealthServicer):
    """One answer for the server as a whole and for each of its services.

    The servicer of grpcio-health-checking is not used: when one of its watchers leaves, the others
    hear of no change any more.

    Args:
        services: Full names of the services.
    """

    def __init__(self, *services: str) -> None:
        self._services = {"", *services}
        self._is_serving = False
        self._is_closed = False
        self._changed = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        """The present answer to health checks."""
        return self._is_serving

    def tell(self, *, serving: bool) -> None:
        """Say from now on that the server serves, or does not."""
        if serving is self._is_serving or self._is_closed:
            return
        self._is_serving = serving
        self._changed.set()
        self._changed = asyncio.Event()  # whoever waits has the one before

    def close(self) -> None:
        """The server is about to end: nothing makes it serve again."""
        self.tell(serving=False)
        self._is_closed = True

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: rpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Answer once."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "the server has no such service")
        return self._answer(request.service)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: rpc.ServicerContext
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Answer now, and whenever it has changed."""
        said: Any = None
        while True:
            changed = self._changed
            answer = self._answer(request.service)
            if answer != said:
                yield answer
                said = answer
            await changed.wait()

    def _answer(self, service: str) -> health_pb2.HealthCheckResponse:
        known = health_pb2.HealthCheckResponse
        if service not in self._services:
            return known(status=known.SERVICE_UNKNOWN)
        return known(status=known.SERVING if self._is_serving else known.NOT_SERVING)


async def keep_true(health: Health, compute: ComputeThread, stall_timeout: float) -> None:
    """Let the server serve as long as its computing goes on; until cancelled.

    Args:
        health: What is told.
        compute: Where it computes.
        stall_timeout: Seconds that one piece of computing may take.
    """
    was_stuck = False
    while True:
        is_stuck = compute.busy_seconds > stall_timeout
        if is_stuck is not was_stuck:
            log.warning(
                "the computing %s: health says %s",
                f"has made no progress for {stall_timeout:g} s" if is_stuck else "goes on again",
                "NOT_SERVING" if is_stuck else "SERVING",
            )
        was_stuck = is_stuck
        health.tell(serving=not is_stuck)
        await asyncio.sleep(_LOOK_SECONDS)
