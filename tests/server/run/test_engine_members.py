"""Clients that come, go, come back and misbehave."""

from __future__ import annotations

import math

import pytest

from hetero_common.agreement.control import StartRound
from hetero_common.errors import (
    HeteroError,
    NonFinite,
    RefusedInput,
    Superseded,
)
from hetero_server.run.member import GONE, MemberState
from hetero_server.run.phase import Phase
from hetero_server.run.work import BoundaryWork, JoinWork, LeaveWork, StepWork
from support.engine_run import Run, drain

# Coming and going.


def test_a_late_joiner_starts_with_the_next_round() -> None:
    run = Run()
    run.join("a")
    run.send("a", 0)
    run.work()
    run.join("late", cut_layer=3)
    assert run.work() == [], "who waits for a round needs no server layers yet"
    assert run.heard("late") == []
    with pytest.raises(RefusedInput):
        run.send("late", 0)
    run.send("a", 1)
    run.work()
    run.done("a")
    assert [type(work) for work in run.work()] == [BoundaryWork, JoinWork]
    assert run.heard("late") == [StartRound(1, 2, pull_state=True, push_state=True)]
    run.train("a")
    assert run.phase() is Phase.TRAINING  # now it is waited for
    run.train("late")
    run.work()
    assert run.engine.round == 2


def test_a_leaver_is_not_waited_for_and_what_it_sent_in_time_counts() -> None:
    run = Run(clients=2)
    run.join("a")
    run.join("b")
    run.send("b", 0, value=5.0)
    run.work()
    run.train("a")
    run.send("b", 1, value=6.0)
    run.engine.detach("b", MemberState.LEFT)
    assert run.phase() is Phase.CLOSING
    assert [type(work) for work in run.work()] == [LeaveWork, BoundaryWork]
    assert run.strategy.clients == {"a": 1}
    assert [value for who, _, value in run.strategy.applied if who == "b"] == [5.0]
    assert run.engine.round == 1
    assert run.member("b").state is MemberState.LEFT


def test_who_leaves_while_weights_are_averaged_does_not_stop_the_run() -> None:
    run = Run(clients=2)
    run.join("a")
    run.join("b")
    run.train("a", "b")
    boundary = run.engine.work()
    assert isinstance(boundary, BoundaryWork)
    run.engine.detach("b", MemberState.LEFT)
    run.engine.settle(boundary, run.engine.perform(boundary))
    assert (run.phase(), run.engine.round) == (Phase.TRAINING, 1)
    assert not any(isinstance(told, StartRound) and told.round == 1 for told in run.heard("b"))


def test_a_round_that_everybody_left_is_repeated_by_who_comes_next() -> None:
    run = Run(clients=2)
    run.join("a")
    run.join("b")
    run.round("a", "b")
    for client_id in "ab":
        run.engine.detach(client_id, MemberState.LEFT)
    assert (run.phase(), run.engine.round) == (Phase.WAITING, 1)
    run.join("c")  # one is enough to go on
    assert run.heard("c") == [StartRound(1, 2, pull_state=True, push_state=True)]
    run.round("c")
    assert run.engine.round == 2


def test_a_late_joiner_goes_on_alone_when_everybody_else_leaves() -> None:
    run = Run()
    run.join("a")
    run.join("late")
    run.engine.detach("a", MemberState.LEFT)
    assert run.phase() is Phase.TRAINING
    assert run.heard("late") == [StartRound(0, 2, pull_state=True, push_state=True)]


def test_the_newest_registration_of_an_id_wins() -> None:
    run = Run(clients=2)
    old = run.join("a", cut_layer=1)
    run.join("b")
    run.send("a", 0)
    drain(old)
    new = run.join("a", cut_layer=3)
    (error,) = drain(old)
    assert isinstance(error, Superseded)
    assert str(error) == "a newer process registered as a: this one can stop"
    assert old.state is MemberState.EVICTED
    assert not old.progress.queue
    assert run.member("a") is new
    run.work()
    assert run.strategy.clients == {"b": 1}
    assert run.strategy.applied == []
    run.round("b")
    run.work()
    assert run.strategy.clients == {"a": 3, "b": 1}
    assert drain(new) == [StartRound(1, 2, pull_state=True, push_state=True)]


def test_a_registration_that_is_refused_leaves_the_old_session_alone() -> None:
    run = Run()
    old = run.join("a")
    for cut_layer, shard_size in ((99, 64), (1, 0)):
        with pytest.raises(HeteroError):
            run.engine.register("a", cut_layer, shard_size)
    assert run.member("a") is old
    assert old.state is MemberState.TRAINING


def test_a_member_that_is_gone_can_not_go_again() -> None:
    run = Run()
    member = run.join("a")
    run.engine.detach("a", MemberState.LEFT)
    drain(member)
    run.engine.detach("a", MemberState.EVICTED, NonFinite("a tensor"))
    assert member.state is MemberState.LEFT
    assert drain(member) == []
    assert [event for event, _ in run.events].count("left") == 1


# Bad activations.


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_client_that_sends_nan_is_sent_away_and_the_others_go_on(bad: float) -> None:
    run = Run(clients=2)
    bad_member = run.join("bad")
    run.join("good")
    run.send("bad", 0, value=bad)
    run.send("bad", 1)
    run.train("good")
    (error,) = [told for told in drain(bad_member) if isinstance(told, HeteroError)]
    assert isinstance(error, NonFinite)
    assert bad_member.state is MemberState.EVICTED
    assert {who for who, _, _ in run.strategy.applied} == {"good"}
    run.work()
    assert run.strategy.clients == {"good": 1}
    assert (run.phase(), run.engine.round) == (Phase.TRAINING, 1)
    run.round("good")
    assert run.engine.round == 2


def test_an_eviction_closes_a_round_that_waited_for_nobody_else() -> None:
    run = Run(clients=2)
    run.join("bad")
    run.join("good")
    run.train("good")
    run.send("bad", 0, value=math.nan)
    run.work()
    assert (run.phase(), run.engine.round) == (Phase.TRAINING, 1)


def test_a_bad_batch_of_an_old_session_does_not_evict_the_new_one() -> None:
    run = Run()
    run.join("a")
    run.work()
    run.send("a", 0, value=math.nan)
    work = run.engine.work()
    assert isinstance(work, StepWork)
    new = run.join("a")  # while the old one's batch is being computed
    run.engine.settle(work, run.engine.perform(work))
    assert new.state not in GONE
    assert not any(isinstance(told, HeteroError) for told in drain(new))
