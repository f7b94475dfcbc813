"""What surrounds the RPCs, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import grpc
import pytest

from hetero_common.wire import rpc
from hetero_server.net.listener import Listener
from hetero_splitee.v1 import service_pb2_grpc
from hetero_splitee.v1.service_pb2 import GetStatusRequest
from support.in_process_server import SECONDS, InProcessServer, with_server

UNARY = [method.name for method in rpc.SERVICE.methods if not method.client_streaming]


@pytest.mark.parametrize("name", UNARY)
def test_a_call_that_ends_before_its_message_is_refused(name: str) -> None:
    """grpc.aio by itself would leave it open, and the caller waiting, for good."""

    def body(server: InProcessServer) -> None:
        with grpc.insecure_channel(server.address) as channel:
            method: Any = channel.stream_stream(f"/{rpc.SERVICE.full_name}/{name}")
            with pytest.raises(grpc.RpcError) as caught:
                list(method(iter(()), timeout=SECONDS))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "a call came without its message"

    with_server(body)


def test_a_closed_front_has_no_calls_in_hand() -> None:
    """Else they end while the event loop does, and gRPC logs each as a failure."""

    class Reluctant:
        def __init__(self) -> None:
            self.begun, self.has_ended = asyncio.Event(), False

        async def GetStatus(self, *given: object) -> None:
            try:
                self.begun.set()
                await asyncio.Event().wait()
            finally:
                for _ in range(10):
                    await asyncio.sleep(0)
                self.has_ended = True

    async def main() -> None:
        front, servicer = await Listener.open("127.0.0.1:0"), Reluctant()
        front.serve(servicer)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel:
            stub: Any = service_pb2_grpc.HeteroSplitStub(channel)
            call = stub.GetStatus(GetStatusRequest(), timeout=SECONDS)
            await servicer.begun.wait()
            await front.close()
            assert servicer.has_ended
            call.cancel()

    asyncio.run(asyncio.wait_for(main(), SECONDS))


def test_what_grpc_says_of_calls_at_its_end_is_no_fault() -> None:
    """A call that the client has ended may still read when the server has stopped."""
    # All event loops of a process share gRPC's poller, which may log errors of an earlier one.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as own:
        assert own.submit(errors_after_a_late_read).result() == []


def errors_after_a_late_read() -> list[str]:
    """What is logged as an error while a stopped server's call reads on."""

    class Late:
        def __init__(self) -> None:
            self.begun, self.stopped = asyncio.Event(), asyncio.Event()
            self.seen: BaseException | None = None

        async def Train(self, requests: AsyncIterator[Any], caller: object) -> AsyncIterator[Any]:
            self.begun.set()
            while not self.stopped.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self.stopped.wait()
            try:
                async for _ in requests:
                    yield None
            except Exception as error:
                self.seen = error
                raise

    async def main() -> None:
        front, servicer = await Listener.open("127.0.0.1:0"), Late()
        front.serve(servicer)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel:
            stub: Any = service_pb2_grpc.HeteroSplitStub(channel)
            call = stub.Train(timeout=SECONDS)
            await servicer.begun.wait()
            call.cancel()
            closing = asyncio.create_task(front.close())
            await asyncio.sleep(0.2)
            servicer.stopped.set()
            await closing
        assert isinstance(servicer.seen, grpc.aio.BaseError)

    errors: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: errors.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    asyncio.run(asyncio.wait_for(main(), SECONDS))
    return errors
