"""How long a round waits, with a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from hetero_server.run.member import MemberState
from hetero_server.run.phase import Phase
from hetero_server.stragglers import Stragglers
from support.engine_run import Run, a_pair, an_evaluation


@dataclass
class Watch:
    """A run under observation, with a clock of its own."""

    run: Run
    quorum: float = 0.5
    now: float = 0.0
    attendance: Stragglers = field(init=False)

    def __post_init__(self) -> None:
        self.attendance = Stragglers(self.run.engine, patience=60.0, quorum=self.quorum)
        self.attendance.look(self.now)

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now += 1.0
            self.attendance.look(self.now)

    def released(self) -> list[str]:
        return [fields["client"] for name, fields in self.run.events if name == "released"]


def test_a_frozen_client_delays_the_others_for_as_long_as_the_patience_lasts() -> None:
    watch = Watch(a_pair())
    watch.run.train("a")
    watch.wait(60)
    assert watch.released() == []
    watch.wait(1)
    assert watch.released() == ["b"]
    assert watch.run.phase() is Phase.CLOSING


def run_of(*names: str) -> Run:
    run = Run(clients=len(names))
    for name in names:
        run.join(name)
    return run


def test_all_who_hold_up_the_others_are_released_at_once() -> None:
    """However many they are: one at each look would hold up a round for minutes."""
    watch = Watch(run_of(*"abcdef"))
    watch.run.train("a", "b")  # too few for a quorum
    watch.wait(60)
    assert watch.released() == []
    watch.wait(1)
    assert watch.released() == list("cdef")
    assert watch.run.phase() is Phase.CLOSING


def test_all_beyond_a_quorum_are_released_at_once() -> None:
    watch = Watch(run_of(*"abcdef"), quorum=0.3)
    run = watch.run
    run.train("a", "b")
    watch.wait(40)
    for name in "cdef":
        run.send(name, 0)  # slow, but not silent
    run.work()
    watch.wait(21)
    assert watch.released() == list("cdef")


@pytest.mark.parametrize("done", ["a", "abc"], ids=["nearly all", "half"])
def test_nobody_is_released_who_waits_for_the_server(done: str) -> None:
    """A server with many clients can take longer than the patience for what they have sent."""
    watch = Watch(run_of(*"abcdef"), quorum=0.5)
    run = watch.run
    run.train(*done)
    for name in "def":
        run.send(name, 0)
    watch.wait(200)
    assert not set(watch.released()) & set("def")
    run.work()
    watch.wait(61)
    assert set(watch.released()) >= set("def"), "from now on the server waits for them"


def test_a_run_that_is_over_waits_for_farewells_as_long_as_for_a_round() -> None:
    run = Run(rounds=1)
    run.join("a")
    watch = Watch(run)
    run.train("a")
    run.work()
    assert not watch.attendance.is_overdue(1000.0)
    run.engine.evaluated("a", an_evaluation(0))
    assert run.phase() is Phase.FINISHED
    watch.wait(61)
    assert not watch.attendance.is_overdue(watch.now)
    watch.wait(1)
    assert watch.attendance.is_overdue(watch.now)


def test_the_last_who_is_there_is_released_by_nobody() -> None:
    watch = Watch(run_of(*"abc"))
    watch.wait(1000)
    assert len(watch.released()) < 3


def test_who_makes_progress_is_released_only_if_a_quorum_is_done() -> None:
    run = Run(clients=3, steps_per_round=200)
    for client_id in "abc":
        run.join(client_id)
    watch = Watch(run, quorum=0.6)
    run.train("a")
    for step in range(90):
        run.send("b", step)
        run.send("c", step)
        run.work()
        watch.wait(1)
    assert watch.released() == []
    run.train_from("b", 90)
    watch.wait(1)
    assert watch.released() == ["c"]


def test_nobody_is_released_whom_nobody_waits_for() -> None:
    run = Run()
    run.join("a")
    watch = Watch(run)
    watch.wait(1000)
    assert watch.released() == []


def test_patience_grows_with_the_length_of_the_rounds() -> None:
    watch = Watch(Run(clients=2, rounds=20))
    run = watch.run
    run.join("a")
    run.join("b")
    for seconds in (100, 110, 90, 105):
        for step in range(2):
            run.send("a", step)
            run.send("b", step)
        run.work()
        watch.wait(seconds)
        run.done("a", "b")
        run.work()
    assert 105 < watch.attendance.limit() < 150


def test_patience_does_not_grow_by_waiting_in_vain() -> None:
    watch = Watch(Run(clients=2, rounds=20))
    run = watch.run
    run.join("a")
    run.join("b")
    for _ in range(5):
        run.train("a")
        watch.wait(62)
        run.work()
    assert watch.released() == ["b"] * 5
    assert watch.attendance.limit() == 60


def test_who_registers_and_opens_no_stream_is_forgotten_after_the_patience() -> None:
    run = Run(clients=2)
    watch = Watch(run)
    run.engine.register("a", 1, 64)
    run.join("b")
    watch.wait(30)
    again = run.engine.register("a", 1, 64)  # another process: its time begins now
    watch.wait(60)
    assert run.member("a") is again
    watch.wait(2)
    assert list(run.engine.members) == ["b"], "who has opened its stream may wait for others"
    assert again.state is MemberState.STALE
