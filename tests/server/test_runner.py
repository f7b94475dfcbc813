"""An engine that trains nothing, driven by the event loop and the compute thread."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest

from hetero_common.agreement.control import RoundDone
from hetero_common.errors import ServerUnreachable
from hetero_server import runner as runner_module
from hetero_server.compute_thread import ComputeThread
from hetero_server.run.member import Ack, MemberState
from hetero_server.run.phase import Phase
from hetero_server.runner import Runner
from hetero_server.stragglers import Stragglers
from support.engine_run import Run, a_batch, an_evaluation

SECONDS = 60.0
"""Guard against an event that never comes."""

Scenario = Callable[[Run, Runner], Awaitable[None]]


def beside_a_runner(run: Run, scenario: Scenario, idle_timeout: float = math.inf) -> None:
    """Run a scenario beside a runner of this engine."""

    async def main() -> None:
        compute = ComputeThread()
        attendance = Stragglers(run.engine, patience=60.0, quorum=0.5)
        runner = Runner(run.engine, compute, stragglers=attendance, idle_timeout=idle_timeout)
        tasks = [asyncio.create_task(runner.run()), asyncio.create_task(runner.attend())]
        try:
            await scenario(run, runner)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            compute.close()

    asyncio.run(asyncio.wait_for(main(), SECONDS))


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look after missing clients all the time, instead of once a second."""
    monkeypatch.setattr(runner_module, "_LOOK_SECONDS", 0.0)


async def heard(run: Run, client_id: str, kind: type) -> object:
    """Wait until the client is told something of this kind."""
    outbox, woken = run.member(client_id).outbox, asyncio.Event()
    outbox.wake = woken.set
    while not any(isinstance(item, kind) for item in outbox):
        await woken.wait()
        woken.clear()
    return next(item for item in outbox if isinstance(item, kind))


def test_work_is_done_as_it_comes() -> None:
    async def scenario(run: Run, runner: Runner) -> None:
        for step in range(2):
            run.engine.submit("a", a_batch(0, step))
            runner.changed()
            ack = await heard(run, "a", Ack)
            assert isinstance(ack, Ack) and (ack.round, ack.step) == (0, step)
            run.heard("a")
        assert [at.step for _, at, _ in run.strategy.applied] == [0, 1]

    run = Run(rounds=1)
    run.join("a")
    beside_a_runner(run, scenario)


def test_the_run_is_over_when_every_client_has_taken_its_leave() -> None:
    async def scenario(run: Run, runner: Runner) -> None:
        over = asyncio.create_task(runner.over())
        for step in range(2):
            run.engine.submit("a", a_batch(0, step))
        run.push("a")
        run.engine.round_done("a", RoundDone(0, 0.25, 0.75))
        runner.changed()
        while run.phase() is not Phase.EVALUATING:
            await asyncio.sleep(0)
        assert not over.done()
        run.engine.evaluated("a", an_evaluation(0))
        runner.changed()
        assert run.phase() is Phase.FINISHED
        assert not over.done()
        run.engine.detach("a", MemberState.LEFT)
        runner.changed()
        await over
        assert runner.left_off == ""

    run = Run(rounds=1)
    run.join("a")
    beside_a_runner(run, scenario)


def test_a_run_that_is_left_off_is_over_and_clients_hear_that_they_may_wait() -> None:
    async def scenario(run: Run, runner: Runner) -> None:
        runner.leave_off("stopped by SIGTERM")
        await runner.over()
        assert runner.left_off == "stopped by SIGTERM"
        error = await heard(run, "a", ServerUnreachable)
        assert str(error) == "the server was stopped, and may be resumed"

    run = Run()
    run.join("a")
    beside_a_runner(run, scenario)


@pytest.mark.usefixtures("restless")
def test_a_run_that_everybody_has_left_is_left_off_after_a_while() -> None:
    async def scenario(run: Run, runner: Runner) -> None:
        run.engine.detach("a", MemberState.STALE)
        await runner.over()
        assert runner.left_off == "all clients are gone"

    run = Run()
    run.join("a")
    beside_a_runner(run, scenario, idle_timeout=0.01)


@pytest.mark.usefixtures("restless")
def test_a_run_that_waits_for_its_first_clients_is_not_left_off() -> None:
    async def scenario(run: Run, runner: Runner) -> None:
        looks = 0
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.02
        while loop.time() < until:
            await asyncio.sleep(0)
            looks += 1
        assert looks > 1
        assert runner.left_off == ""

    beside_a_runner(Run(), scenario, idle_timeout=0.001)
