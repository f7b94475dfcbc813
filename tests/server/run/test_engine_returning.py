"""Clients that vanish and come back, and rounds that go on without them."""

from __future__ import annotations

import pytest
import torch

from hetero_common.agreement.control import Evaluate, Finish, StartRound
from hetero_common.errors import LimitExceeded, RefusedInput, Superseded
from hetero_server.run.member import Ack, Member, MemberState
from hetero_server.run.phase import Phase
from hetero_server.run.work import LeaveWork
from support.engine_run import Run, a_batch, a_pair, an_evaluation, drain, hand_in

# Vanishing, and coming back.


def come_back(run: Run, client_id: str, *held: int, cut_layer: int = 1) -> Member:
    """Another process of this client, which can go back to the end of these rounds."""
    member = run.engine.register(client_id, cut_layer, 64, held)
    run.engine.attach(client_id)
    return member


def vanish(run: Run, client_id: str) -> None:
    run.engine.detach(client_id, MemberState.STALE)


def test_a_round_waits_for_who_has_vanished() -> None:
    run = a_pair()
    vanish(run, "b")
    run.train("a")
    assert run.work() == []
    assert (run.phase(), run.engine.round) == (Phase.TRAINING, 1)
    assert run.member("b").state is MemberState.STALE


def test_who_is_back_hears_its_round_again_and_what_has_arrived_of_it() -> None:
    run = a_pair()
    run.send("b", 0)
    run.work()
    vanish(run, "b")
    back = come_back(run, "b", 0)
    assert back.base == 0
    again = StartRound(1, 2, pull_state=True, push_state=True, first_step=1)
    assert drain(back) == [again]
    hand_in(run.engine, "b", a_batch(1, 1))
    run.work()
    run.done("b")
    run.train("a")
    run.work()
    assert run.engine.round == 2
    applied = [(who, at.round, at.step) for who, at, _ in run.strategy.applied if who == "b"]
    assert applied == [("b", 0, 0), ("b", 0, 1), ("b", 1, 0), ("b", 1, 1)]


def test_a_round_begins_with_who_has_registered_again_and_not_opened_its_stream_yet() -> None:
    run = a_pair()
    run.train("b")
    vanish(run, "b")
    back = run.engine.register("b", 1, 64, (0, 1))
    run.train("a")
    run.work()
    assert (run.phase(), run.engine.round) == (Phase.TRAINING, 2)
    run.train("a")
    assert run.work() == [], "the round waits"
    run.engine.attach("b")
    assert drain(back) == [StartRound(2, 2, pull_state=True, push_state=True)]


def test_what_was_queued_is_applied_while_its_client_is_away() -> None:
    run = a_pair()
    run.send("b", 0, 1)
    vanish(run, "b")
    run.work()
    back = come_back(run, "b", 0)
    assert (back.progress.received, back.applied) == (2, 2)
    (start,) = drain(back)
    assert isinstance(start, StartRound)
    assert start.first_step == 2


def test_a_step_that_is_being_applied_when_its_client_returns_is_booked_for_the_new_process() -> (
    None
):
    run = a_pair()
    run.send("b", 0)
    work = run.engine.work()
    assert work is not None
    outcome = run.engine.perform(work)
    vanish(run, "b")
    back = come_back(run, "b", 0)
    run.engine.settle(work, outcome)
    assert back.applied == 1
    assert [type(told) for told in drain(back)] == [StartRound, Ack]


@pytest.mark.parametrize("held", [(), (1,), (-1,)])
def test_who_has_lost_its_state_joins_anew(held: tuple[int, ...]) -> None:
    run = a_pair()
    vanish(run, "b")
    back = come_back(run, "b", *held)
    assert back.base is None
    assert drain(back) == []
    run.round("a")
    assert drain(back)[0] == StartRound(2, 2, pull_state=True, push_state=True)


def test_who_is_back_with_another_cut_layer_is_a_new_member() -> None:
    run = a_pair()
    vanish(run, "b")
    back = come_back(run, "b", 0, cut_layer=2)
    assert (back.base, back.cut_layer) == (None, 2)
    assert [type(work) for work in run.work()] == [LeaveWork]
    run.round("a")
    run.work()
    assert run.strategy.clients == {"a": 1, "b": 2}
    assert [name for name, _ in run.events].count("joined") == 3


def test_who_vanishes_before_its_first_step_starts_anew_in_the_same_round() -> None:
    run = Run(clients=2)
    run.join("a")
    run.join("b")
    vanish(run, "b")
    back = come_back(run, "b")
    assert back.base is None
    assert drain(back) == [StartRound(0, 2, pull_state=True, push_state=True)]
    run.round("a", "b")
    assert run.engine.round == 1


def test_the_newer_of_two_processes_goes_on_and_the_older_is_told() -> None:
    run = a_pair()
    old = run.member("b")
    run.send("b", 0)
    new = come_back(run, "b", 0)
    (error,) = drain(old)
    assert isinstance(error, Superseded)
    assert old.state is MemberState.EVICTED
    assert drain(new)[0] == StartRound(1, 2, pull_state=True, push_state=True)
    assert len(new.progress.queue) == 0, "it sends again what was queued, with credits of its own"


@pytest.mark.parametrize("computing", [0, 1])
def test_who_is_back_has_all_its_credits(computing: int) -> None:
    """Whatever is still queued of it, or being computed: it does not know."""
    run = Run(credits=2, steps_per_round=6)
    run.join("a")
    run.work()
    run.send("a", 0, 1)
    work = run.engine.work() if computing else None
    vanish(run, "a")
    back = come_back(run, "a", -1)
    (start,) = drain(back)
    assert isinstance(start, StartRound)
    assert start.first_step == computing
    run.send("a", computing, computing + 1)
    with pytest.raises(LimitExceeded):
        run.send("a", computing + 2)
    assert len(back.progress.queue) == 2, "memory is bounded as ever"
    if work is not None:
        run.engine.settle(work, run.engine.perform(work))
    run.work()
    assert [at.step for _, at, _ in run.strategy.applied] == list(range(computing + 2))


def test_what_is_queued_behind_a_report_is_kept() -> None:
    run = a_pair()
    run.send("b", 0, 1)
    run.done("b")
    vanish(run, "b")
    back = come_back(run, "b", 0, 1)
    assert drain(back) == [], "there is nothing left to do for it"
    run.train("a")
    run.work()
    assert run.engine.round == 2


def test_a_step_that_comes_twice_while_it_is_queued_is_acknowledged_once() -> None:
    run = a_pair()
    run.send("b", 0)
    hand_in(run.engine, "b", a_batch(1, 0))
    assert run.heard("b") == []
    run.work()
    assert [told.step for told in run.heard("b") if isinstance(told, Ack)] == [0]


def test_a_copy_of_the_last_step_gets_its_feedback_again() -> None:
    run = Run(feedback="gradient")
    run.strategy.feedback = torch.ones(2, 2)
    run.join("a")
    run.heard("a")
    run.send("a", 0)
    run.work()
    (first,) = run.heard("a")
    hand_in(run.engine, "a", a_batch(0, 0))
    (second,) = run.heard("a")
    assert isinstance(first, Ack)
    assert isinstance(second, Ack)
    assert second.duplicate
    assert second.feedback is first.feedback is not None


def test_who_has_done_its_round_is_back_without_a_word_and_pulls_again() -> None:
    run = a_pair()
    run.train("b")
    vanish(run, "b")
    back = come_back(run, "b", 1)
    assert (back.base, drain(back), back.state) == (1, [], MemberState.SYNCING)
    run.train("a")
    run.work()
    assert drain(back) == [StartRound(2, 2, pull_state=True, push_state=True)]


def test_an_evaluation_is_asked_for_again() -> None:
    run = Run(clients=2, eval_every=1)
    run.join("a")
    run.join("b")
    run.train("a", "b")
    run.work()
    vanish(run, "b")
    run.engine.evaluated("a", an_evaluation(0))
    assert run.phase() is Phase.EVALUATING
    back = come_back(run, "b", 0)
    assert drain(back) == [Evaluate(0, pull_state=True, last=False)]
    run.engine.evaluated("b", an_evaluation(0))
    assert run.engine.round == 1
    # It may have lost what it pulled for the evaluation, had it not come back in time for it.
    vanish(run, "b")
    assert drain(come_back(run, "b", 0))[0] == StartRound(1, 2, pull_state=True, push_state=True)


def test_who_comes_back_after_the_end_is_dismissed() -> None:
    run = Run(clients=2, rounds=1)
    run.join("a")
    run.join("b")
    run.train("a", "b")
    run.work()
    run.engine.evaluated("a", an_evaluation(0))
    run.engine.evaluated("b", an_evaluation(0))
    vanish(run, "b")
    assert isinstance(drain(come_back(run, "b", 0))[0], Finish)


# Going on without somebody.


def test_a_round_goes_on_without_who_is_released_and_what_it_sent_counts() -> None:
    run = a_pair()
    run.send("b", 0)
    run.work()
    run.train("a")
    run.engine.release("b", "it is frozen")
    run.work()
    assert run.engine.round == 2
    closed = [f for name, f in run.events if name == "round" and f["round"] == 1]
    assert [(f["client"], f["applied"]) for f in closed] == [("a", "0-1"), ("b", "0")]


def test_what_comes_too_late_is_acknowledged_and_not_applied() -> None:
    run = a_pair()
    run.train("a")
    run.engine.release("b", "it is slow")
    run.work()
    run.heard("b")
    before = len(run.strategy.applied)
    hand_in(run.engine, "b", a_batch(1, 0))
    (late,) = run.heard("b")
    assert isinstance(late, Ack)
    assert (late.round, late.step, late.duplicate) == (1, 0, True)
    assert run.work() == []
    assert len(run.strategy.applied) == before
    with pytest.raises(RefusedInput):
        hand_in(run.engine, "b", a_batch(3, 0))  # of a round that is to come


def test_a_released_client_that_is_there_joins_the_next_round() -> None:
    run = a_pair()
    run.train("a")
    run.engine.release("b", "it is slow")
    run.work()
    assert run.heard("b")[-1] == StartRound(2, 2, pull_state=True, push_state=True)
    run.train("a", "b")
    run.work()
    assert run.phase() is Phase.EVALUATING


def test_the_server_layers_of_who_stays_away_are_given_up_with_the_round() -> None:
    run = a_pair(rounds=4)
    vanish(run, "b")
    run.train("a")
    run.engine.release("b", "it is gone")
    assert [type(work) for work in run.work()][-1] is LeaveWork
    back = come_back(run, "b", 0)
    assert back.base == 0, "its own state is still good"
    run.round("a")
    run.work()
    assert set(run.strategy.clients) == {"a", "b"}
