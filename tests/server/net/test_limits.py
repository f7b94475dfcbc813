"""Who asks for too much is refused, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
import torch

from hetero_common.errors import LimitExceeded, PermissionDenied, RefusedInput, UnknownSession
from hetero_common.tensors import codec
from hetero_common.wire.frames import Frame
from hetero_server.auth.identity import Caller
from hetero_server.net.limits import OpenCalls, PerMinute
from hetero_server.net.receiver import Receiver
from hetero_server.net.sessions import Sessions
from hetero_server.run.member import Identity, Member, MemberState
from hetero_splitee.v1 import service_pb2 as pb


def a_member(client_id: str) -> Member:
    return Member(Identity(client_id, cut_layer=1, shard_size=64, steps=2), membership=0)


# Calls.


def test_one_caller_has_so_many_calls_open_and_another_is_not_touched() -> None:
    calls = OpenCalls(total=10, each=2)
    with ExitStack() as stack:
        stack.enter_context(calls.one_of("a"))
        with calls.one_of("a"), pytest.raises(LimitExceeded, match="at most 2 calls of one client"):
            stack.enter_context(calls.one_of("a"))
        stack.enter_context(calls.one_of("a"))  # the place of the one that has ended
        stack.enter_context(calls.one_of("b"))


def test_all_callers_together_have_so_many_calls_open() -> None:
    calls = OpenCalls(total=3, each=2)
    with ExitStack() as stack:
        for caller in ("a", "b", "c"):
            stack.enter_context(calls.one_of(caller))
        with pytest.raises(LimitExceeded, match=r"at most 3 calls at a time \(its --max-calls\)"):
            stack.enter_context(calls.one_of("d"))
    with calls.one_of("d"):
        pass


def test_a_call_that_fails_gives_its_place_back() -> None:
    calls = OpenCalls(total=1, each=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="its own"), calls.one_of("a"):
            raise ValueError("its own")


# Registrations.


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_registrations_of_one_client_and_of_all_are_counted_by_the_minute() -> None:
    clock = Clock()
    registrations = PerMinute(total=4, each=2, clock=clock)
    for client_id in ("a", "a", "b"):
        registrations.count(client_id)
    with pytest.raises(LimitExceeded, match="at most 2 registrations of one client"):
        registrations.count("a")
    registrations.count("c")
    with pytest.raises(LimitExceeded, match="at most 4 registrations a minute"):
        registrations.count("d")
    clock.now += 59.0
    with pytest.raises(LimitExceeded):
        registrations.count("d")
    clock.now += 1.0
    for client_id in ("a", "a", "d", "d"):
        registrations.count(client_id)


# Sessions.


def sessions(most: int) -> Sessions:
    return Sessions(most, PerMinute(100, 100))


def test_a_session_is_of_one_client_and_ends() -> None:
    here = sessions(2)
    member = a_member("a")
    token = here.open(member)
    assert here.member(Caller("a", token)) is member
    with pytest.raises(PermissionDenied):
        here.member(Caller("b", token))
    for wrong in ("", token[:-1]):
        with pytest.raises(UnknownSession):
            here.member(Caller("a", wrong))
    here.end(member)
    with pytest.raises(UnknownSession):
        here.member(Caller("a", token))


def test_so_many_clients_are_here_at_a_time() -> None:
    here = sessions(2)
    first, second = a_member("a"), a_member("b")
    for member in (first, second):
        here.require_room(member.client_id)
        here.open(member)
    with pytest.raises(LimitExceeded, match=r"at most 2 clients at a time \(its --max-clients\)"):
        here.require_room("c")
    here.require_room("a")  # it takes its own place
    second.enter(MemberState.STALE, "its connection broke")
    here.require_room("c")


# Bulk bytes.


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
