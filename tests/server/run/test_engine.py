"""The first round, and the batches of a round."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hetero_common.agreement.control import RoundDone, StartRound
from hetero_common.compute.schedules import StepAt
from hetero_common.errors import (
    CutLayerOutOfRange,
    LimitExceeded,
    RefusedInput,
    StepGap,
)
from hetero_common.tensors import codec
from hetero_common.tensors.weights import Weights
from hetero_server.run.member import Ack, MemberState
from hetero_server.run.orders import ORDERS, relay
from hetero_server.run.phase import Phase
from support.engine_run import Run, a_batch, hand_in

# The first round.


def test_the_first_round_starts_when_the_agreed_clients_are_there() -> None:
    run = Run(clients=3)
    for client_id in ("a", "b"):
        run.join(client_id, cut_layer=2)
        assert run.phase() is Phase.WAITING
    run.engine.register("c", 3, 64)
    assert run.heard("a") == run.heard("b") == []
    assert run.phase() is Phase.WAITING  # c has no stream yet
    run.engine.attach("c")
    assert run.phase() is Phase.TRAINING
    start = StartRound(round=0, steps=2, pull_state=True, push_state=True)
    assert [run.heard(client_id) for client_id in "abc"] == [[start]] * 3
    assert all(run.member(client_id).state is MemberState.TRAINING for client_id in "abc")


def test_who_left_before_the_start_does_not_count() -> None:
    run = Run(clients=2)
    run.join("a")
    run.engine.detach("a", MemberState.STALE)
    run.join("b")
    assert run.phase() is Phase.WAITING
    run.join("a")
    assert run.phase() is Phase.TRAINING


@pytest.mark.parametrize(
    ("aggregation", "rounds", "pushes"),
    [("round", 3, [True, True, True]), ("none", 3, [False, False, True])],
)
def test_weights_travel_when_they_are_averaged_and_at_the_end(
    aggregation: str, rounds: int, pushes: list[bool]
) -> None:
    run = Run(client_aggregation=aggregation, rounds=rounds)
    run.join("a")
    starts = []
    for _ in range(rounds):
        starts += [told for told in run.heard("a") if isinstance(told, StartRound)]
        run.round("a")
    assert [start.push_state for start in starts] == pushes
    assert [start.pull_state for start in starts] == [True] + [aggregation == "round"] * 2


def test_each_client_trains_as_many_steps_as_its_shard_has_batches() -> None:
    run = Run(clients=2, steps_per_round=0, batch_size=32)
    run.join("small", shard_size=20)
    run.join("large", shard_size=100)
    for client_id, steps in (("small", 1), ("large", 3)):
        assert run.heard(client_id) == [StartRound(0, steps, pull_state=True, push_state=True)]


@pytest.mark.parametrize("cut_layer", [-1, 0, 6, 99])
def test_a_cut_layer_that_the_model_has_not_is_refused(cut_layer: int) -> None:
    run = Run()
    with pytest.raises(CutLayerOutOfRange):
        run.engine.register("a", cut_layer, 64)
    assert run.engine.members == {}


@pytest.mark.parametrize("shard_size", [0, 1])
def test_a_shard_too_small_for_a_batch_is_refused(shard_size: int) -> None:
    with pytest.raises(RefusedInput, match=f"a shard of {shard_size} images is too small"):
        Run().engine.register("a", 1, shard_size)


# Batches.


def test_a_batch_is_applied_and_acknowledged() -> None:
    run = Run(steps_per_round=2)
    member = run.join("a", cut_layer=2)
    run.heard("a")
    hand_in(run.engine, "a", a_batch(0, 0, value=7.0, rows=4))
    assert run.heard("a") == []  # not before it is applied
    run.work()
    assert run.strategy.clients == {"a": 2}
    assert run.strategy.applied == [("a", StepAt(0, 0, 2), 7.0)]
    assert run.heard("a") == [Ack(round=0, step=0, loss=0.5, accuracy=0.25)]
    assert (member.samples, member.traffic.bytes_received) == (4, 4 * 2 * 4)


def test_feedback_returns_with_the_acknowledgement_in_the_agreed_wire_dtype() -> None:
    run = Run(feedback="logits", wire="fp16")
    run.strategy.feedback = torch.tensor([[1.0, 2.0, 3.0]] * 2)
    run.join("a")
    run.heard("a")
    run.send("a", 0)
    run.work()
    (ack,) = run.heard("a")
    assert isinstance(ack, Ack)
    assert ack.feedback is not None
    assert ack.feedback.wire_dtype == "fp16"
    assert torch.equal(codec.decode(ack.feedback), run.strategy.feedback)


def test_batches_of_a_client_are_applied_in_order_whatever_the_order_of_clients() -> None:
    for order in (ORDERS[name] for name in ORDERS):
        run = Run(clients=2, order=order, steps_per_round=4)
        run.join("a")
        run.join("b")
        for step in range(4):
            run.send("b", step)
            run.send("a", step)
        run.work()
        for client_id in "ab":
            steps = [at.step for who, at, _ in run.strategy.applied if who == client_id]
            assert steps == [0, 1, 2, 3]


def test_the_order_decides_whose_batch_is_next() -> None:
    run = Run(clients=2, order=relay, steps_per_round=2)
    run.join("a")
    run.join("b")
    for step in range(2):
        run.send("a", step)
        run.send("b", step)
    run.work()
    clients = [who for who, _, _ in run.strategy.applied]
    assert clients in (["a", "a", "b", "b"], ["b", "b", "a", "a"])


def test_a_duplicate_is_acknowledged_and_not_applied() -> None:
    run = Run()
    run.join("a")
    run.send("a", 0, value=1.0)
    run.work()
    run.heard("a")
    assert not run.engine.admit("a", 0, 0, [0, 0], 2)
    run.send("a", 0, value=2.0)
    assert run.heard("a") == [Ack(round=0, step=0, duplicate=True)]
    assert run.work() == []
    assert [value for _, _, value in run.strategy.applied] == [1.0]


@pytest.mark.parametrize(("sent", "step"), [(0, 1), (0, 3), (1, 2), (2, 3)])
def test_a_gap_is_refused_with_the_expected_step(sent: int, step: int) -> None:
    run = Run(steps_per_round=4)
    run.join("a")
    run.send("a", *range(sent))
    with pytest.raises(StepGap) as caught:
        run.send("a", step)
    assert str(caught.value) == (
        f"step {step} of round 0 leaves a gap: step {sent} is expected next"
    )


@pytest.mark.parametrize("credits", [1, 3])
def test_batches_beyond_the_credits_are_refused_until_one_is_acknowledged(credits: int) -> None:
    run = Run(credits=credits, steps_per_round=8)
    member = run.join("a")
    run.work()
    run.send("a", *range(credits))
    with pytest.raises(LimitExceeded) as caught:
        run.send("a", credits)
    assert str(caught.value) == f"more than the agreed {credits} batches are unacknowledged"
    assert len(member.progress.queue) == credits
    work = run.engine.work()
    assert work is not None
    with pytest.raises(LimitExceeded):  # it is being applied, not yet acknowledged
        run.send("a", credits)
    run.engine.settle(work, run.engine.perform(work))
    run.send("a", credits)
    assert len(member.progress.queue) == credits


@pytest.mark.parametrize(
    ("labels", "rows", "reason"),
    [
        ([0], 1, "a batch has 2 rows at least and a label for each, not 1"),
        ([], 0, "a batch has 2 rows at least and a label for each, not 0"),
        ([0, 1], 3, "a batch has 2 rows at least and a label for each, not 3"),
        ([0, 1, 2], 2, "a batch has 2 rows at least and a label for each, not 2"),
        ([0, 3], 2, "a label is outside 0..2: check --classes"),
        ([-1, 0], 2, "a label is outside 0..2: check --classes"),
        ([2**32 - 1, 0], 2, "a label is outside 0..2: check --classes"),
    ],
)
def test_impossible_rows_and_labels_are_refused(labels: list[int], rows: int, reason: str) -> None:
    run = Run()
    member = run.join("a")
    with pytest.raises(RefusedInput) as caught:
        run.engine.admit("a", 0, 0, labels, rows)
    assert str(caught.value) == reason
    assert member.progress.received == 0


@pytest.mark.parametrize("step", [-1, 2, 10**9])
def test_a_step_that_the_round_has_not_is_refused(step: int) -> None:
    run = Run()
    run.join("a")
    with pytest.raises(RefusedInput, match=rf"round 0 has steps 0\.\.1, not {step}"):
        run.send("a", step)


@pytest.mark.parametrize("round_", [-1, 1, 7])
def test_what_is_not_of_the_current_round_is_refused(round_: int) -> None:
    run = Run()
    run.join("a")
    attempts: list[Callable[[], object]] = [
        lambda: hand_in(run.engine, "a", a_batch(round_, 0)),
        lambda: run.engine.push("a", round_, Weights()),
        lambda: run.engine.round_done("a", RoundDone(round_, 0.0, 0.0)),
    ]
    for attempt in attempts:
        with pytest.raises(RefusedInput) as caught:
            attempt()
        assert str(caught.value) == f"round {round_} is not the one this client is training"


def test_who_is_not_training_sends_nothing() -> None:
    run = Run(clients=2)
    run.join("a")
    with pytest.raises(RefusedInput):  # the round has not started
        run.send("a", 0)
    run.join("b")
    run.train("a")
    with pytest.raises(RefusedInput):  # its round is done
        run.send("a", 0)
    with pytest.raises(RefusedInput):
        run.push("a")
    with pytest.raises(RefusedInput):
        run.engine.round_done("a", RoundDone(0, 0.0, 0.0))


def test_a_steps_randomness_is_its_own_whatever_was_computed_before() -> None:
    drawn = []
    for sequence in ("aabb", "baba"):
        run = Run(clients=2)
        run.join("a")
        run.join("b")
        next_step = {"a": 0, "b": 0}
        for client_id in sequence:
            run.send(client_id, next_step[client_id])
            next_step[client_id] += 1
        run.work()
        drawn.append(run.strategy.drawn)
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0].values())) == 4
