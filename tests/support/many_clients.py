"""Many clients in one process, which speak the protocol by hand: no model, no thread for each."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hetero_common.wire import rpc
from hetero_common.wire.frames import frames
from hetero_splitee.v1 import service_pb2 as pb
from support.intruder import GOOD, batch, registration

STREAMS_PER_CONNECTION = 100
_AT_ONCE = 5
"""Registrations that are under way at the same time on one connection; of who has no
session yet, the server takes a few at a time."""


class ManyClients:
    """Clients on few connections; those that train send zeros, the others only say that they live.

    Args:
        address: Of the server.
        connections: As many as `STREAMS_PER_CONNECTION` asks for, or more.
    """

    def __init__(self, address: str, connections: int) -> None:
        # Each with a pool of its own, else gRPC would put all of them on one connection.
        options = (*rpc.CLIENT_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        self._channels = [grpc.aio.insecure_channel(address, options) for _ in range(connections)]
        self._turns = [asyncio.Semaphore(_AT_ONCE) for _ in range(connections)]
        self.fingerprint = ""

    async def greet(self) -> None:
        """Learn what the server trains, and let it do for the first time what it does for all."""
        answer = await self._method(0, "GetStatus")(pb.GetStatusRequest())
        self.fingerprint = answer.fingerprint
        asks = registration(client_id="first", fingerprint=self.fingerprint)
        granted = await self._method(0, "Register")(asks)
        session = ((rpc.SESSION_KEY, granted.session),)
        async for _ in self._method(0, "PullState")(pb.PullStateRequest(), metadata=session):
            pass
        await self._method(0, "Leave")(pb.LeaveRequest(), metadata=session)

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def take_part(self, number: int, *, trains: bool, lives: asyncio.Event) -> int:
        """A client's whole life; `lives` is set with the first sign of the server's on its stream.

        Returns how many of its steps were applied.
        """
        where, name = number % len(self._channels), f"client-{number:04}"
        asks = registration(client_id=name, fingerprint=self.fingerprint)
        async with self._turns[where]:
            granted = await self._method(where, "Register")(asks)
        session = ((rpc.SESSION_KEY, granted.session),)
        stream = self._method(where, "Train")(metadata=session)
        applied = 0
        while True:
            frame = await stream.read()
            assert frame is not grpc.aio.EOF, f"{name} was told {stream.details()}"
            lives.set()
            match frame.message.WhichOneof("kind"):
                case "heartbeat":
                    await stream.write(pb.TrainRequest(heartbeat=pb.Heartbeat()))
                case "start_round" if trains:
                    await self._train(stream, where, session, frame.message.start_round)
                case "ack":
                    applied += not frame.message.ack.duplicate
                case "evaluate" if trains:
                    evaluation = pb.Evaluation(round=frame.message.evaluate.round, samples=1)
                    await stream.write(pb.TrainRequest(evaluation=evaluation))
                case "finish":
                    break
        await self._method(where, "Leave")(pb.LeaveRequest(), metadata=session)
        await stream.done_writing()
        return applied

    async def _train(self, stream: Any, where: int, session: Any, start: pb.StartRound) -> None:
        """A round, within the four credits that a client has; the answers are read elsewhere."""
        assert start.steps <= 4
        for step in range(start.steps):
            for frame in frames(batch(round=start.round, step=step), GOOD):
                await stream.write(frame)
        if start.push_state:
            pulled = [
                frame.chunk
                async for frame in self._method(where, "PullState")(
                    pb.PullStateRequest(), metadata=session
                )
            ]
            data = b"".join(pulled)
            head = pb.PushStateRequest(header=pb.StateHeader(round=start.round, bytes=len(data)))
            said = frames(head, memoryview(data))
            await self._method(where, "PushState")(said, metadata=session)
        await stream.write(pb.TrainRequest(round_done=pb.RoundDone(round=start.round)))

    def _method(self, where: int, name: str) -> Any:
        return rpc.callable_for(self._channels[where], name)  # type: ignore[arg-type] # aio's


@asynccontextmanager
async def many_clients_at(address: str, clients: int) -> AsyncIterator[ManyClients]:
    them = ManyClients(address, -(-clients // STREAMS_PER_CONNECTION))
    try:
        await them.greet()
        yield them
    finally:
        await them.close()


@contextmanager
def health_checked(address: str, every: float = 0.2) -> Iterator[list[float]]:
    """Ask for the server's health all the while; gives the seconds that each answer took."""
    took: list[float] = []
    over = threading.Event()
    failures: list[Exception] = []

    def ask() -> None:
        request = health_pb2.HealthCheckRequest(service="")
        has_ended = False
        with grpc.insecure_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            while not over.wait(every):
                begun = time.monotonic()
                try:
                    answer = stub.Check(request, timeout=30)
                except grpc.RpcError as error:
                    if not over.wait(10):  # else the run was over, and its server has ended
                        failures.append(error)
                    return
                took.append(time.monotonic() - begun)
                is_serving = answer.status == health_pb2.HealthCheckResponse.SERVING
                if is_serving and has_ended:
                    failures.append(AssertionError("it served again"))
                has_ended = has_ended or not is_serving  # the run may be over before the asking

    thread = threading.Thread(target=ask, name="health")
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()
    assert not failures, failures
