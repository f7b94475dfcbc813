from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import torch

from hetero_common.errors import LimitExceeded, RefusedInput
from hetero_common.tensors import codec
from hetero_common.wire.frames import Frame
from hetero_server.net.receiver import Receiver
from hetero_splitee.v1 import service_pb2 as pb


async def stream(*chunks: bytes) -> AsyncIterator[Frame[pb.PushStateRequest]]:
    for chunk in chunks:
        yield Frame(None, memoryview(chunk))


ANNOUNCEMENT: Frame[pb.PushStateRequest] = Frame()


def test_received_bytes_count_as_long_as_anything_refers_to_them() -> None:
    async def scenario() -> None:
        receiver = Receiver(memory=100)
        data = await receiver.collect(8, ANNOUNCEMENT, stream(b"\0" * 8), "a tensor")
        assert data is not None
        decoded = codec.decode(codec.Payload("fp32", (2,), data))
        del data
        await asyncio.sleep(0)
        assert receiver.taken == 8, "the tensor shares the memory"
        assert torch.equal(decoded, torch.zeros(2))
        del decoded
        await asyncio.sleep(0)
        assert receiver.taken == 0

    asyncio.run(scenario())


def test_whoever_finds_the_memory_used_up_waits_until_there_is_room() -> None:
    async def scenario() -> None:
        receiver = Receiver(memory=10)

        def collect(size: int, may_wait: bool = True) -> asyncio.Task[memoryview | None]:
            frames = stream(bytes(size))
            waits = receiver.collect(size, ANNOUNCEMENT, frames, "it", may_wait=lambda: may_wait)
            return asyncio.create_task(waits)

        first = await collect(8)
        waiting = [collect(8), collect(2)]
        await asyncio.sleep(0.01)
        assert [task.done() for task in waiting] == [False, True], "the smaller one fits"
        assert receiver.taken == 10
        awaited = await collect(8, may_wait=False)
        assert awaited is not None and receiver.taken == 18, "what everybody waits for comes in"
        del first, awaited
        assert await waiting[0] is not None
        huge = collect(50)  # would never fit: it comes in alone
        await asyncio.sleep(0.01)
        assert not huge.done()
        waiting.clear()
        assert await huge is not None

    asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.parametrize("chunks", [(b"1234", b"56"), (b"12345678", b"9")])
def test_fewer_bytes_are_no_tensor_and_more_are_refused(chunks: tuple[bytes, ...]) -> None:
    async def scenario() -> None:
        receiver = Receiver()
        frames = stream(*chunks)
        if sum(map(len, chunks)) < 8:
            assert await receiver.collect(8, ANNOUNCEMENT, frames, "it") is None
        else:
            first = await anext(frames)
            with pytest.raises(RefusedInput, match="more bytes came"):
                await receiver.collect(7, first, frames, "it")

    asyncio.run(scenario())


def test_a_stream_on_which_nothing_comes_is_ended() -> None:
    async def scenario() -> None:
        receiver = Receiver(patience=0.01)
        never = asyncio.Event()

        async def silent() -> AsyncIterator[Frame[pb.PushStateRequest]]:
            yield ANNOUNCEMENT
            await never.wait()

        frames = receiver.in_time(silent())
        assert await anext(frames) is ANNOUNCEMENT
        with pytest.raises(LimitExceeded, match=r"nothing came on this stream for 0\.01 s"):
            await anext(frames)

    asyncio.run(scenario())


def test_a_stream_that_goes_on_ends_by_itself() -> None:
    async def scenario() -> list[int]:
        receiver = Receiver(patience=60)
        return [len(frame.chunk or b"") async for frame in receiver.in_time(stream(b"1", b"22"))]

    assert asyncio.run(scenario()) == [1, 2]
