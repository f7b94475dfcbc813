"""The health of a server, asked over a socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hetero_common.wire import rpc
from hetero_server.compute_thread import ComputeThread
from hetero_server.net.health import keep_true
from hetero_server.net.listener import Listener

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SECONDS = 60.0
"""Guard against an answer that never comes."""


class HealthClient:
    """Somebody who asks for a server's health."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def check(self, service: str = "") -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        return int((await self._stub.Check(request, timeout=SECONDS)).status)

    async def watch(self, service: str = "") -> AsyncIterator[int]:
        request = health_pb2.HealthCheckRequest(service=service)
        call = self._stub.Watch(request, timeout=SECONDS)
        try:
            async for answer in call:
                yield int(answer.status)
        finally:
            call.cancel()


Body = Callable[[Listener, HealthClient], Awaitable[None]]


def with_front(body: Body) -> None:
    async def main() -> None:
        front = await Listener.open("127.0.0.1:0")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel:
            await body(front, HealthClient(health_pb2_grpc.HealthStub(channel)))
        await front.close()

    asyncio.run(asyncio.wait_for(main(), 2 * SECONDS))


def test_a_server_that_is_still_loading_does_not_serve() -> None:
    async def body(front: Listener, client: HealthClient) -> None:
        for service in ("", rpc.SERVICE.full_name):
            assert await client.check(service) == NOT_SERVING
        front.health.tell(serving=True)
        for service in ("", rpc.SERVICE.full_name):
            assert await client.check(service) == SERVING

    with_front(body)


def test_other_services_are_not_known() -> None:
    async def body(front: Listener, client: HealthClient) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.check("another.Service")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert await anext(client.watch("another.Service")) == UNKNOWN

    with_front(body)


def test_every_watcher_hears_of_every_change_whoever_else_leaves() -> None:
    async def body(front: Listener, client: HealthClient) -> None:
        staying, leaving = client.watch(), client.watch()
        assert [await anext(staying), await anext(leaving)] == [NOT_SERVING, NOT_SERVING]
        await leaving.aclose()  # type: ignore[attr-defined]
        for serving, status in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
            front.health.tell(serving=serving)
            assert await anext(staying) == status

    with_front(body)


def test_a_server_that_ends_serves_no_more() -> None:
    async def body(front: Listener, client: HealthClient) -> None:
        watching = client.watch()
        await anext(watching)
        front.health.tell(serving=True)
        assert await anext(watching) == SERVING
        ending = asyncio.create_task(front.close(grace=SECONDS))
        assert await anext(watching) == NOT_SERVING
        front.health.tell(serving=True)  # a last look at the computing changes nothing
        await watching.aclose()  # type: ignore[attr-defined]
        await ending

    with_front(body)


def test_a_server_whose_computing_is_stuck_does_not_serve_until_it_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetero_server.net.health._LOOK_SECONDS", 0.01)

    async def body(front: Listener, client: HealthClient) -> None:
        compute, goes_on = ComputeThread(), threading.Event()
        looking = asyncio.create_task(keep_true(front.health, compute, stall_timeout=0.05))
        watching = client.watch()
        while await anext(watching) != SERVING:
            pass
        stuck = asyncio.create_task(compute.run(goes_on.wait))
        assert await anext(watching) == NOT_SERVING
        goes_on.set()
        await stuck
        assert await anext(watching) == SERVING
        assert compute.busy_seconds == 0.0
        looking.cancel()
        compute.close()

    with_front(body)
    # gRPC's poller may tell this log of a loop that another test has closed.
    logged = [record for record in caplog.records if record.name == keep_true.__module__]
    assert [record.getMessage() for record in logged] == [
        "the computing has made no progress for 0.05 s: health says NOT_SERVING",
        "the computing goes on again: health says SERVING",
    ]
