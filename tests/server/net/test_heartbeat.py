"""Heartbeats on a loop whose clock a test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from hetero_server.net.heartbeat import Heartbeat


class Loop(asyncio.SelectorEventLoop):
    """A loop in which time passes when somebody says so."""

    now = 1000.0

    def time(self) -> float:
        return self.now


def run(scenario: Callable[[Loop, Heartbeat, asyncio.Event], Awaitable[None]]) -> None:
    """With a heartbeat every ten seconds."""
    loop = Loop()

    async def main() -> None:
        wake = asyncio.Event()
        pulse = Heartbeat(wake, seconds=10.0)
        try:
            await scenario(loop, pulse, wake)
        finally:
            pulse.stop()

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_the_stream_is_woken_once_per_heartbeat() -> None:
    async def scenario(loop: Loop, pulse: Heartbeat, wake: asyncio.Event) -> None:
        for _ in range(3):
            loop.now += 9.9
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not wake.is_set()
            loop.now += 0.1
            await wake.wait()
            wake.clear()

    run(scenario)


def test_who_is_silent_for_three_heartbeats_is_lost() -> None:
    async def scenario(loop: Loop, pulse: Heartbeat, wake: asyncio.Event) -> None:
        loop.now += 30.0
        assert not pulse.is_lost
        loop.now += 0.1
        assert pulse.is_lost

    run(scenario)


def test_every_message_is_a_sign_of_life() -> None:
    async def scenario(loop: Loop, pulse: Heartbeat, wake: asyncio.Event) -> None:
        async def messages() -> AsyncIterator[int]:
            for number in range(3):
                loop.now += 25.0
                yield number

        heard = [(number, pulse.is_lost) async for number in pulse.heard(messages())]
        assert heard == [(0, False), (1, False), (2, False)]
        assert not pulse.is_lost

    run(scenario)


def test_while_the_server_does_not_listen_silence_is_its_own() -> None:
    async def scenario(loop: Loop, pulse: Heartbeat, wake: asyncio.Event) -> None:
        async def messages() -> AsyncIterator[str]:
            yield "a batch that there is no memory for"
            yield "and what came meanwhile"

        heard = pulse.heard(messages())
        await anext(heard)
        loop.now += 100.0
        assert not pulse.is_lost
        await anext(heard)
        loop.now += 100.0
        assert not pulse.is_lost
        assert await anext(heard, None) is None
        assert not pulse.is_lost
        loop.now += 30.1
        assert pulse.is_lost

    run(scenario)


@pytest.mark.parametrize(("seconds", "is_due"), [(8.9, False), (9.0, True), (10.0, True)])
def test_it_is_time_to_speak_shortly_before_the_heartbeat(seconds: float, is_due: bool) -> None:
    async def scenario(loop: Loop, pulse: Heartbeat, wake: asyncio.Event) -> None:
        loop.now += 5.0
        pulse.said()
        loop.now += seconds
        assert pulse.is_due is is_due

    run(scenario)


def test_a_stream_that_has_ended_is_not_woken() -> None:
    async def scenario(loop: Loop, pulse: Heartbeat, wake: asyncio.Event) -> None:
        pulse.stop()
        loop.now += 100.0
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not wake.is_set()

    run(scenario)
