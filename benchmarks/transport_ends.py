"""The four processes of `transport`: a server and a client, ours and of a plain gRPC stream.

python benchmarks/transport_ends.py ours-server | ours-client ADDRESS
python benchmarks/transport_ends.py plain-server | plain-client ADDRESS

A server prints `listening on HOST:PORT` and serves until it is killed. A client runs STEPS steps
for every line it reads, and then answers with a line.
"""

from __future__ import annotations

import asyncio
import queue
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import torch
from null_run import SHAPE, NullClient, batch, null_engine, served

from hetero_common.compute.process import keep_freed_memory
from hetero_splitee.v1 import service_pb2 as pb
from hetero_splitee.v1 import service_pb2_grpc

import grpc  # isort: skip  # after our own modules: they set what gRPC reads on import

STEPS = 20
"""One-way steps per line a client reads."""
WINDOW = 4
"""Steps without an acknowledgement, in both systems."""

_STEP_BYTES = 4 * torch.Size(SHAPE).numel()
_CHUNK_BYTES = 1 << 20  # four messages a step


async def ours_server() -> None:
    """The real server with an empty strategy."""
    keep_freed_memory()  # as our commands do
    engine = null_engine(steps=STEPS)
    assert engine.credits == WINDOW, "both systems have the same window"
    async with served(engine) as address:
        print(f"listening on {address}", flush=True)
        await asyncio.Event().wait()


def ours_client(address: str) -> None:
    """The real link."""
    keep_freed_memory()
    client = NullClient(address, "client-1")
    _answer_lines(client.train_round)


class PlainServicer(service_pb2_grpc.HeteroSplitServicer):
    """What one would write first: join the chunks, make a tensor, acknowledge."""

    async def Train(
        self, requests: AsyncIterator[pb.TrainRequest], context: object
    ) -> AsyncIterator[pb.TrainResponse]:
        """Batches of `_STEP_BYTES` one way, acknowledgements the other."""
        parts: list[bytes] = []
        received = step = 0
        async for request in requests:
            parts.append(request.chunk)
            received += len(parts[-1])
            if received == _STEP_BYTES:
                tensor = torch.frombuffer(bytearray().join(parts), dtype=torch.float32).view(SHAPE)
                assert tensor.shape == SHAPE
                yield pb.TrainResponse(ack=pb.Ack(step=step))
                parts, received, step = [], 0, step + 1


async def plain_server() -> None:
    """A grpc.aio server with the generated handlers."""
    server = grpc.aio.server()
    servicer = PlainServicer()  # type: ignore[abstract] # Train is all that is called
    service_pb2_grpc.add_HeteroSplitServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


class PlainClient:
    """The generated stub; gRPC's own thread slices and serializes, this one reads the answers."""

    def __init__(self, address: str) -> None:
        activation, _ = batch()
        self._data = activation.numpy().data.cast("B")
        self._granted: queue.SimpleQueue[None] = queue.SimpleQueue()
        stub = service_pb2_grpc.HeteroSplitStub(grpc.insecure_channel(address))
        self._answers = stub.Train(self._requests())

    def _requests(self) -> Iterator[pb.TrainRequest]:
        while True:
            self._granted.get()
            for start in range(0, _STEP_BYTES, _CHUNK_BYTES):
                yield pb.TrainRequest(chunk=bytes(self._data[start : start + _CHUNK_BYTES]))

    def train_round(self) -> None:
        """STEPS steps, WINDOW of them on their way."""
        for step in range(STEPS + WINDOW):
            if step < STEPS:
                self._granted.put(None)
            if step >= WINDOW:
                next(self._answers)


def plain_client(address: str) -> None:
    """The plain stream's client."""
    _answer_lines(PlainClient(address).train_round)


def _answer_lines(train_round: Callable[[], None]) -> None:
    for _ in sys.stdin:
        train_round()
        print("done", flush=True)


def main() -> None:
    """Be one of the four."""
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["ours-server"]:
            asyncio.run(ours_server())
        case ["plain-server"]:
            asyncio.run(plain_server())
        case ["ours-client", address]:
            ours_client(address)
        case ["plain-client", address]:
            plain_client(address)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
