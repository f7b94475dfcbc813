"""The one thread that computes, beside the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hetero_server.compute_thread import ComputeThread

SECONDS = 60.0
"""Guard against an event that never comes."""


def test_everything_is_computed_in_one_thread_that_is_not_the_event_loops() -> None:
    async def main() -> set[str]:
        compute = ComputeThread()
        names = [compute.run(lambda: threading.current_thread().name) for _ in range(5)]
        found = set(await asyncio.gather(*names))
        compute.close()
        return found

    (name,) = asyncio.run(main())
    assert name.startswith("compute")


def test_what_is_computed_or_raised_comes_back() -> None:
    async def main() -> None:
        compute = ComputeThread()
        assert await compute.run(lambda: 1 + 1) == 2
        with pytest.raises(ZeroDivisionError):
            await compute.run(lambda: 1 // 0)
        assert compute.busy_seconds == 0.0
        compute.close()

    asyncio.run(main())


def test_how_long_it_is_busy_is_known_while_it_is() -> None:
    async def main() -> None:
        compute, begun, goes_on = ComputeThread(), threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            goes_on.wait(SECONDS)

        assert compute.busy_seconds == 0.0
        task = asyncio.create_task(compute.run(work))
        await asyncio.to_thread(begun.wait, SECONDS)
        first = compute.busy_seconds
        while compute.busy_seconds <= first:
            await asyncio.sleep(0)
        goes_on.set()
        await task
        assert compute.busy_seconds == 0.0
        compute.close()

    asyncio.run(main())
