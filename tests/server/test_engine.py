from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor

from hetero_common import codec
from hetero_common.aggregation import LayerStates
from hetero_common.control import Evaluate, Evaluation, Finish, RoundDone, StartRound
from hetero_common.errors import (
    CutLayerOutOfRange,
    HeteroError,
    LimitExceeded,
    NonFinite,
    NotTraining,
    RefusedInput,
    StepGap,
    UnknownSession,
)
from hetero_common.plan import Plan, StepAt
from hetero_common.weights import Weights
from hetero_server.engine import Engine, Phase
from hetero_server.initial import InitialModel
from hetero_server.members import GONE, Ack, Batch, Member, MemberState
from hetero_server.orders import ORDERS, Order, arrival, relay
from hetero_server.suffix import StepResult
from hetero_server.work import BoundaryWork, JoinWork, LeaveWork, Outcome, StepWork, Work

PLAN = Plan(model="tinycnn", width=2, image_size=8, classes=3, rounds=3, steps_per_round=2)


@functools.cache
def initial_model() -> InitialModel:
    """Engines copy what they change of it."""
    return InitialModel(PLAN)


@dataclass
class FakeStrategy:
    """Trains nothing and remembers who came, in which order, with what.

    Attributes:
        aggregate_every: Rounds between aggregations of the clients' replicas; 0: there are none.
        applied: Client, step and first value of the activation of each batch.
        drawn: What each step drew from torch's generator.
    """

    aggregate_every: int = 0
    clients: dict[str, int] = field(default_factory=dict)
    applied: list[tuple[str, StepAt, float]] = field(default_factory=list)
    drawn: dict[tuple[str, StepAt], float] = field(default_factory=dict)
    feedback: Tensor | None = None

    def add(self, client_id: str, cut_layer: int) -> None:
        self.clients[client_id] = cut_layer

    def remove(self, client_id: str) -> None:
        self.clients.pop(client_id, None)

    def step(self, client_id: str, activation: Tensor, labels: Tensor, at: StepAt) -> StepResult:
        assert client_id in self.clients, "a step of a client that was never added"
        self.applied.append((client_id, at, float(activation[0, 0])))
        self.drawn[client_id, at] = float(torch.rand(()))
        return StepResult(loss=0.5, correct=1, feedback=self.feedback)

    def copies(self, round_: int, last: bool) -> Mapping[str, LayerStates]:
        if not self.aggregate_every or (round_ + 1) % self.aggregate_every:
            return {}
        return {client_id: {6: self.layers()[6]} for client_id in self.clients}

    def adopt(self, averaged: LayerStates) -> None:
        assert list(averaged) == [6]

    def predict(self, activation: Tensor, cut_layer: int, client_id: str | None) -> Tensor:
        return torch.full((len(activation), PLAN.classes), 1 / PLAN.classes)

    def layers(self) -> LayerStates:
        return initial_model().weights.layers


def a_batch(round_: int, step: int, value: float = 0.0, rows: int = 2) -> Batch:
    activation = torch.full((rows, 2), value)
    data = memoryview(bytearray(activation.numpy().tobytes()))
    payload = codec.Payload("fp32", (rows, 2), data)  # `encode` would refuse NaN
    return Batch(round_, step, payload, [0] * rows)


def an_evaluation(round_: int) -> Evaluation:
    return Evaluation(round_, 10, 0.5, 0.6, 0.4, 0.7, 0.3)


class Run:
    """An engine with everything around it that a test plays itself."""

    def __init__(
        self,
        clients: int = 1,
        *,
        credits: int = 4,
        order: Order = arrival,
        uniform_weights: bool = False,
        **changes: object,
    ) -> None:
        self.plan = PLAN.model_copy(update=changes)
        self.strategy = FakeStrategy()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.engine = Engine(
            self.plan,
            initial_model(),
            self.strategy,
            order,
            clients=clients,
            credits=credits,
            uniform_weights=uniform_weights,
            observe=lambda event, **fields: self.events.append((event, fields)),
        )

    def join(self, client_id: str, cut_layer: int = 1, shard_size: int = 64) -> Member:
        member = self.engine.register(client_id, cut_layer, shard_size)
        self.engine.attach(client_id)
        return member

    def member(self, client_id: str) -> Member:
        return self.engine.members[client_id]

    def phase(self) -> Phase:
        return self.engine.phase

    def heard(self, client_id: str) -> list[object]:
        """What the client has been told since the last time."""
        return drain(self.member(client_id))

    def send(self, client_id: str, *steps: int, value: float = 0.0) -> None:
        for step in steps:
            self.engine.submit(client_id, a_batch(self.engine.round, step, value))

    def push(self, client_id: str) -> None:
        weights = self.engine.weights_for(self.member(client_id).cut_layer)
        self.engine.push(client_id, self.engine.round, weights)

    def done(self, *client_ids: str) -> None:
        """Every step is applied: push and say so."""
        for client_id in client_ids:
            self.push(client_id)
            self.engine.round_done(client_id, RoundDone(self.engine.round, 0.25, 0.75))

    def work(self) -> list[Work]:
        """Compute until there is nothing left."""
        performed = []
        while (work := self.engine.work()) is not None:
            self.engine.settle(work, self.engine.perform(work))
            performed.append(work)
        return performed

    def train(self, *client_ids: str) -> None:
        """The current round of these clients, without its boundary."""
        for client_id in client_ids:
            for step in range(self.member(client_id).steps):
                self.send(client_id, step)
                self.work()
        self.done(*client_ids)

    def round(self, *client_ids: str) -> None:
        """The current round of these clients with its boundary, evaluation included."""
        round_ = self.engine.round
        self.train(*client_ids)
        self.work()
        if self.phase() is Phase.EVALUATING:
            for client_id in client_ids:
                self.engine.evaluated(client_id, an_evaluation(round_))


def drain(member: Member) -> list[object]:
    told = list[object](member.outbox)
    member.outbox.clear()
    return told


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
    run.engine.submit("a", a_batch(0, 0, value=7.0, rows=4))
    assert run.heard("a") == []  # not before it is applied
    run.work()
    assert run.strategy.clients == {"a": 2}
    assert run.strategy.applied == [("a", StepAt(0, 0, 2), 7.0)]
    assert run.heard("a") == [Ack(round=0, step=0, loss=0.5, accuracy=0.25)]
    assert (member.samples, member.bytes_received) == (4, 4 * 2 * 4)


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
    for order in ORDERS.values():
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
    assert len(member.queue) == credits
    work = run.engine.work()
    assert work is not None
    with pytest.raises(LimitExceeded):  # it is being applied, not yet acknowledged
        run.send("a", credits)
    run.engine.settle(work, run.engine.perform(work))
    run.send("a", credits)
    assert len(member.queue) == credits


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
    assert member.received == 0


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
        lambda: run.engine.submit("a", a_batch(round_, 0)),
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


# The end of a round.


def test_a_round_is_not_done_before_its_last_step_is_applied() -> None:
    run = Run()
    run.join("a")
    run.send("a", 0, 1)
    run.push("a")
    with pytest.raises(RefusedInput, match="step 0 of round 0 is still missing"):
        run.engine.round_done("a", RoundDone(0, 0.0, 0.0))
    run.work()
    run.engine.round_done("a", RoundDone(0, 0.0, 0.0))


def test_a_round_is_not_done_without_the_weights_that_were_asked_for() -> None:
    run = Run()
    run.join("a")
    run.send("a", 0, 1)
    run.work()
    with pytest.raises(RefusedInput, match="ends with the client's weights: push them"):
        run.engine.round_done("a", RoundDone(0, 0.0, 0.0))


def test_weights_of_the_last_round_do_not_count_again() -> None:
    run = Run()
    run.join("a")
    run.round("a")
    run.send("a", 0, 1)
    run.work()
    with pytest.raises(RefusedInput, match="push them"):
        run.engine.round_done("a", RoundDone(1, 0.0, 0.0))


def test_the_next_round_starts_when_everybody_is_done() -> None:
    run = Run(clients=2)
    run.join("a")
    run.join("b")
    run.train("a")
    assert run.work() == []
    assert run.member("a").state is MemberState.SYNCING
    run.train("b")
    assert run.phase() is Phase.CLOSING
    assert [type(work) for work in run.work()] == [BoundaryWork]
    assert (run.phase(), run.engine.round) == (Phase.TRAINING, 1)
    assert run.heard("a")[-1] == StartRound(1, 2, pull_state=True, push_state=True)
    run.send("a", 0)  # step 0 again, of the new round
    run.work()
    assert run.strategy.applied[-1][1] == StepAt(1, 0, 2)


def test_pulled_weights_are_the_average_of_what_was_pushed() -> None:
    run = Run(clients=2)
    run.join("a", cut_layer=1)
    run.join("b", cut_layer=2)
    for client_id, shift, rows in (("a", 1.0, 2), ("b", 4.0, 6)):
        for step in range(2):
            run.engine.submit(client_id, a_batch(0, step, rows=rows))
        run.work()
        pushed = run.engine.weights_for(run.member(client_id).cut_layer)
        moved = {
            number: {name: value + shift for name, value in state.items()}
            for number, state in pushed.layers.items()
        }
        run.engine.push(client_id, 0, Weights(moved, pushed.exits))
        run.engine.round_done(client_id, RoundDone(0, 0.0, 0.0))
    run.work()
    start = initial_model().weights.layers
    pulled = run.engine.weights_for(3).layers
    for number, shift in ((1, (4 * 1.0 + 12 * 4.0) / 16), (2, 4.0), (3, 0.0)):
        weight = start[number]["conv.weight"]
        torch.testing.assert_close(pulled[number]["conv.weight"], weight + shift)


def test_a_client_pulls_and_pushes_its_own_layers_and_exit_only() -> None:
    engine = Run().engine
    weights = engine.weights_for(3)
    assert (list(weights.layers), list(weights.exits)) == ([1, 2, 3], [3])
    assert engine.state_bytes(3) == weights.nbytes
    read = engine.read_state(3, weights.to_bytes())
    assert (list(read.layers), list(read.exits)) == ([1, 2, 3], [3])
    with pytest.raises(RefusedInput):
        engine.read_state(2, weights.to_bytes())


@pytest.mark.parametrize(("uniform", "weights"), [(False, [4.0, 12.0]), (True, [1.0, 1.0])])
def test_a_client_counts_by_its_samples_or_like_any_other(
    uniform: bool, weights: list[float]
) -> None:
    run = Run(clients=2, uniform_weights=uniform)
    run.join("b", cut_layer=2)
    run.join("a")
    for client_id, rows in (("a", 2), ("b", 6)):
        for step in range(2):
            run.engine.submit(client_id, a_batch(0, step, rows=rows))
    run.work()
    run.done("a", "b")
    (boundary,) = [work for work in run.work() if isinstance(work, BoundaryWork)]
    found = [(c.client_id, c.cut_layer, c.weight) for c in boundary.contributions]
    assert found == [("a", 1, weights[0]), ("b", 2, weights[1])]
    assert all(c.pushed is not None for c in boundary.contributions)


def test_samples_count_since_the_last_aggregation() -> None:
    run = Run(client_aggregation="none", rounds=6)
    run.strategy.aggregate_every = 2
    weights = []
    run.join("a")
    for clients in ("a", ("a", "late"), ("a", "late"), ("a", "late")):
        run.train(*clients)
        if clients == "a":
            run.join("late")
        (boundary,) = [work for work in run.work() if isinstance(work, BoundaryWork)]
        weights.append({c.client_id: c.weight for c in boundary.contributions})
    samples = 2.0 * 2  # rows times steps of a round
    assert weights[1] == {"a": 2 * samples, "late": samples}
    assert weights[3] == {"a": 2 * samples, "late": 2 * samples}


# Coming and going.


def test_a_late_joiner_starts_with_the_next_round() -> None:
    run = Run()
    run.join("a")
    run.send("a", 0)
    run.work()
    run.join("late", cut_layer=3)
    assert [type(work) for work in run.work()] == [JoinWork]
    assert run.heard("late") == []
    with pytest.raises(RefusedInput):
        run.send("late", 0)
    run.send("a", 1)
    run.work()
    run.done("a")
    run.work()
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
    run.engine.detach("b", MemberState.STALE)
    run.engine.settle(boundary, run.engine.perform(boundary))
    assert (run.phase(), run.engine.round) == (Phase.TRAINING, 1)
    assert not any(isinstance(told, StartRound) and told.round == 1 for told in run.heard("b"))


def test_a_round_that_everybody_left_is_repeated_by_who_comes_next() -> None:
    run = Run(clients=2)
    run.join("a")
    run.join("b")
    run.round("a", "b")
    for client_id in "ab":
        run.engine.detach(client_id, MemberState.STALE)
    assert (run.phase(), run.engine.round) == (Phase.WAITING, 1)
    run.join("c")  # one is enough to go on
    assert run.heard("c") == [StartRound(1, 2, pull_state=True, push_state=True)]
    run.round("c")
    assert run.engine.round == 2


def test_a_late_joiner_goes_on_alone_when_everybody_else_leaves() -> None:
    run = Run()
    run.join("a")
    run.join("late")
    run.engine.detach("a", MemberState.STALE)
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
    assert isinstance(error, UnknownSession)
    assert str(error) == "a newer process registered as a: this one can stop"
    assert old.state is MemberState.EVICTED
    assert not old.queue
    assert run.member("a") is new
    run.work()
    assert run.strategy.clients == {"a": 3, "b": 1}  # the old one's leave has not removed it
    assert run.strategy.applied == []
    run.round("b")
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


# Evaluation and the end.


def test_the_next_round_waits_for_every_evaluation() -> None:
    run = Run(clients=2, eval_every=1)
    run.join("a")
    run.join("b")
    run.train("a", "b")
    run.work()
    assert run.phase() is Phase.EVALUATING
    asked = Evaluate(round=0, pull_state=True, last=False)
    assert run.heard("a")[-1] == run.heard("b")[-1] == asked
    run.engine.evaluated("a", an_evaluation(0))
    assert run.phase() is Phase.EVALUATING
    assert run.heard("a") == []
    run.engine.evaluated("b", an_evaluation(0))
    assert (run.phase(), run.engine.round) == (Phase.TRAINING, 1)
    # The averages were pulled for the evaluation and need not be pulled again.
    assert run.heard("a") == [StartRound(1, 2, pull_state=False, push_state=True)]
    run.train("a", "b")
    run.work()
    assert run.phase() is Phase.EVALUATING  # the answers of round 0 do not count


def test_who_leaves_during_an_evaluation_is_not_waited_for() -> None:
    run = Run(clients=2, eval_every=1)
    run.join("a")
    run.join("b")
    run.train("a", "b")
    run.work()
    run.engine.evaluated("a", an_evaluation(0))
    run.engine.detach("b", MemberState.STALE)
    assert run.engine.round == 1


def test_a_run_goes_on_when_everybody_leaves_during_an_evaluation() -> None:
    run = Run(eval_every=1)
    run.join("a")
    run.train("a")
    run.work()
    run.engine.detach("a", MemberState.STALE)
    assert (run.phase(), run.engine.round) == (Phase.WAITING, 1)
    run.join("a")
    assert run.heard("a") == [StartRound(1, 2, pull_state=True, push_state=True)]


def test_an_evaluation_that_was_not_asked_for_is_refused() -> None:
    run = Run(clients=2, eval_every=2)
    run.join("a")
    run.join("b")
    for _ in range(2):
        with pytest.raises(RefusedInput, match="no evaluation was asked for"):
            run.engine.evaluated("a", an_evaluation(run.engine.round))
        run.train("a", "b")
        run.work()
    assert run.phase() is Phase.EVALUATING
    with pytest.raises(RefusedInput):
        run.engine.evaluated("a", an_evaluation(0))
    run.join("late")
    with pytest.raises(RefusedInput):
        run.engine.evaluated("late", an_evaluation(1))


def test_after_the_last_round_everybody_evaluates_and_is_dismissed() -> None:
    run = Run(clients=2, rounds=2)
    run.join("a")
    run.join("b", cut_layer=2)
    run.round("a", "b")
    run.train("a", "b")
    assert run.engine.model is None
    run.work()
    assert run.phase() is Phase.EVALUATING
    run.join("late")
    assert run.heard("a")[-1] == Evaluate(round=1, pull_state=True, last=True)
    for client_id in "ab":
        run.engine.evaluated(client_id, an_evaluation(1))
    assert run.phase() is Phase.FINISHED
    for client_id in ("a", "b", "late"):
        assert run.heard(client_id)[-1] == Finish("all rounds are done")
    assert [type(work) for work in run.work()] == [JoinWork]
    assert not run.engine.is_over
    for client_id in ("a", "b", "late"):
        run.engine.detach(client_id, MemberState.LEFT)
    assert run.engine.is_over
    assert run.engine.model is not None
    assert list(run.engine.model.layers) == [1, 2, 3, 4, 5, 6]
    assert sorted(run.engine.model.exits) == [1, 2]


def test_nobody_joins_a_run_that_is_over() -> None:
    run = Run(rounds=1)
    run.join("a")
    run.round("a")
    assert run.phase() is Phase.FINISHED
    with pytest.raises(NotTraining, match="the run is over"):
        run.engine.register("b", 1, 64)


def test_who_registered_in_time_and_comes_too_late_is_dismissed() -> None:
    run = Run(rounds=1)
    run.join("a")
    run.engine.register("late", 1, 64)
    run.round("a")
    run.engine.attach("late")
    assert run.heard("late") == [Finish("all rounds are done")]


def test_a_server_of_predictions_trains_nobody() -> None:
    run = Run()
    run.engine.phase = Phase.SERVING
    with pytest.raises(NotTraining):
        run.engine.register("a", 1, 64)
    answer = run.engine.predict(torch.zeros(4, 2), 1, None)
    assert answer.shape == (4, PLAN.classes)


def test_a_run_records_what_happened() -> None:
    run = Run(rounds=2, steps_per_round=2)
    run.join("a", cut_layer=2, shard_size=50)
    run.round("a")
    run.round("a")
    run.engine.detach("a", MemberState.LEFT)
    names = [event for event, _ in run.events]
    assert names == ["joined", "round", "round", "evaluation", "finished", "left"]
    fields = dict(run.events)
    assert fields["joined"] == {"client": "a", "cut_layer": 2, "shard_size": 50, "round": 0}
    assert fields["round"] == {
        "round": 1,
        "client": "a",
        "cut_layer": 2,
        "samples": 4,
        "server_loss": 0.5,
        "server_train_accuracy": 0.5,
        "exit_loss": 0.25,
        "exit_train_accuracy": 0.75,
        "bytes_received": 4 * 16,
    }
    assert fields["evaluation"]["server_accuracy"] == 0.6
    assert fields["left"] == {"client": "a", "state": "LEFT", "round": 1}


# Anything, in any order.


@dataclass
class Session:
    """What a client of the state machine knows of itself.

    Attributes:
        sent: The value of each batch that is to be applied, in order; no two batches share one.
        acked: How many of them are acknowledged.
        round: The last round it was told to train.
        step: The next step of that round.
        acked_of_round: How many steps of that round are acknowledged.
        start: What started that round, until its end is reported.
        asked: The evaluation it owes.
        dismissed: It was told that the run is over, or that it is to go, or has left.
        may_be_sent_away: A newer process has its id, or it has sent a bad batch.
    """

    member: Member
    sent: list[float] = field(default_factory=list)
    acked: int = 0
    round: int = -1
    step: int = 0
    acked_of_round: int = 0
    start: StartRound | None = None
    asked: Evaluate | None = None
    dismissed: bool = False
    may_be_sent_away: bool = False

    @property
    def client_id(self) -> str:
        return self.member.client_id

    def listen(self) -> None:
        """Hear what an honest engine may say, and nothing else."""
        for told in drain(self.member):
            if self.member.state in GONE and self.dismissed:
                return  # its stream has ended
            assert not self.dismissed, f"{told} after the end"
            match told:
                case Ack(duplicate=True):
                    assert (told.round, told.step < self.step) == (self.round, True)
                case Ack():
                    assert (told.round, told.step) == (self.round, self.acked_of_round)
                    self.acked += 1
                    self.acked_of_round += 1
                case StartRound():
                    assert (self.start, self.asked) == (None, None)
                    assert told.round > self.round
                    self.start, self.round = told, told.round
                    self.step = self.acked_of_round = 0
                case Evaluate():
                    assert (self.start, self.asked) == (None, None)
                    assert told.round == self.round
                    self.asked = told
                case Finish():
                    assert (self.start, self.asked) == (None, None)
                    self.dismissed = True
                case _:
                    assert isinstance(told, HeteroError)
                    assert self.may_be_sent_away, told
                    self.dismissed = True


def choose(sessions: Sequence[Session], pick: int) -> Session:
    return sessions[pick % len(sessions)]


class AnyRun(RuleBasedStateMachine):
    """Clients come, send, misbehave and go while at most one piece of work is being computed."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Session] = []
        self.in_flight: Work | None = None
        self.outcome: Outcome = None
        self.is_performed = False
        self.closed: list[int] = []
        self.has_started = False
        self.values = 0

    @initialize(
        clients=st.integers(1, 3),
        credits=st.integers(1, 3),
        order=st.sampled_from(sorted(ORDERS)),
        aggregation=st.sampled_from(["none", "round"]),
        eval_every=st.integers(0, 2),
        rounds=st.integers(1, 2),
        steps=st.integers(1, 4),
    )
    def begin(
        self,
        clients: int,
        credits: int,
        order: str,
        aggregation: str,
        eval_every: int,
        rounds: int,
        steps: int,
    ) -> None:
        self.run = Run(
            clients,
            credits=credits,
            order=ORDERS[order],
            client_aggregation=aggregation,
            eval_every=eval_every,
            rounds=rounds,
            steps_per_round=steps,
        )
        self.engine = self.run.engine
        self.clients = clients

    # Who can do what.

    def registered(self) -> list[Session]:
        return [session for session in self.sessions if session.member.state not in GONE]

    def unattached(self) -> list[Session]:
        return [session for session in self.registered() if not session.member.attached]

    def attached(self) -> list[Session]:
        return [session for session in self.registered() if session.member.attached]

    def training(self) -> list[Session]:
        return [session for session in self.attached() if session.start]

    def unfinished(self) -> list[Session]:
        return [session for session in self.training() if session.step < session.member.steps]

    def has_credit(self, session: Session) -> bool:
        return session.step - session.acked_of_round < self.engine.credits

    def evaluating(self) -> list[Session]:
        return [session for session in self.attached() if session.asked]

    # What clients do.

    def can_join(self) -> bool:
        return self.engine.phase is not Phase.FINISHED and len(self.registered()) < 3

    @precondition(can_join)
    @rule(cut_layer=st.integers(1, 5), attach=st.booleans())
    def join(self, cut_layer: int = 1, attach: bool = True) -> None:
        self.register(f"client {len(self.sessions)}", cut_layer, attach)

    @precondition(lambda self: self.engine.phase is not Phase.FINISHED and self.sessions)
    @rule(pick=st.integers(0, 9), cut_layer=st.integers(1, 5), attach=st.booleans())
    def come_back(self, pick: int, cut_layer: int, attach: bool) -> None:
        client_id = choose(self.sessions, pick).client_id
        for session in self.sessions:
            session.may_be_sent_away |= session.client_id == client_id
        self.register(client_id, cut_layer, attach)

    def register(self, client_id: str, cut_layer: int, attach: bool) -> None:
        self.sessions.append(Session(self.engine.register(client_id, cut_layer, 64)))
        if attach:
            self.engine.attach(client_id)

    @precondition(lambda self: self.unattached())
    @rule(pick=st.integers(0, 9))
    def attach(self, pick: int) -> None:
        self.engine.attach(choose(self.unattached(), pick).client_id)

    @precondition(lambda self: self.unfinished())
    @rule(pick=st.integers(0, 9), is_bad=st.sampled_from([False] * 4 + [True]))
    def send(self, pick: int, is_bad: bool) -> None:
        session = choose(self.unfinished(), pick)
        self.values += 1
        value = math.nan if is_bad else float(self.values)
        batch = a_batch(session.round, session.step, value)
        if self.has_credit(session):
            self.engine.submit(session.client_id, batch)
            session.step += 1
            session.sent.append(value)
            session.may_be_sent_away |= is_bad
        else:
            with pytest.raises(LimitExceeded):
                self.engine.submit(session.client_id, batch)

    @precondition(lambda self: self.training())
    @rule(
        pick=st.integers(0, 9),
        skipped=st.sampled_from([-3, -2, -1, 1, 2]),
        ahead=st.sampled_from([-1, 0, 0, 0, 0, 1]),
    )
    def send_out_of_turn(self, pick: int, skipped: int, ahead: int) -> None:
        session = choose(self.training(), pick)
        step, steps = session.step + skipped, session.member.steps
        batch = a_batch(session.round + ahead, step, value=-1.0)
        if ahead == 0 and 0 <= step < session.step:
            self.engine.submit(session.client_id, batch)  # a duplicate
            return
        is_gap = ahead == 0 and 0 <= step < steps
        with pytest.raises(StepGap if is_gap else RefusedInput):
            self.engine.submit(session.client_id, batch)

    @precondition(lambda self: self.training())
    @rule(pick=st.integers(0, 9))
    def finish_round(self, pick: int) -> None:
        session = choose(self.training(), pick)
        assert session.start is not None
        if session.start.push_state:
            self.run.push(session.client_id)
        report = RoundDone(session.round, 0.0, 0.0)
        if session.acked_of_round < session.member.steps:
            with pytest.raises(RefusedInput):
                self.engine.round_done(session.client_id, report)
        else:
            session.start = None
            self.engine.round_done(session.client_id, report)

    @precondition(lambda self: self.evaluating())
    @rule(pick=st.integers(0, 9))
    def evaluate(self, pick: int) -> None:
        session = choose(self.evaluating(), pick)
        session.asked = None
        self.engine.evaluated(session.client_id, an_evaluation(session.round))

    @precondition(lambda self: self.registered())
    @rule(pick=st.integers(0, 9), state=st.sampled_from([MemberState.LEFT, MemberState.STALE]))
    def leave(self, pick: int, state: MemberState) -> None:
        session = choose(self.registered(), pick)
        session.dismissed = True
        self.engine.detach(session.client_id, state)

    # What the compute thread does; everything else may happen meanwhile.

    @precondition(lambda self: self.in_flight is None)
    @rule()
    def take_work(self) -> None:
        self.in_flight = work = self.engine.work()
        if isinstance(work, BoundaryWork):
            assert work.round == self.engine.round == len(self.closed)
            self.closed.append(work.round)
        if self.engine.phase is Phase.FINISHED:
            assert work is None or isinstance(work, JoinWork | LeaveWork)

    @precondition(lambda self: self.in_flight is not None and not self.is_performed)
    @rule()
    def perform_work(self) -> None:
        assert self.in_flight is not None
        self.outcome, self.is_performed = self.engine.perform(self.in_flight), True

    @precondition(lambda self: self.is_performed)
    @rule()
    def settle_work(self) -> None:
        assert self.in_flight is not None
        work, self.in_flight, self.is_performed = self.in_flight, None, False
        self.engine.settle(work, self.outcome)

    # What always holds.

    def listen(self) -> None:
        for session in self.sessions:
            session.listen()

    @invariant()
    def each_step_is_applied_exactly_once_in_order(self) -> None:
        self.listen()
        applied = [value for _, _, value in self.run.strategy.applied]
        assert -1.0 not in applied  # neither a duplicate nor anything that was refused
        assert len(applied) == len(set(applied))
        for session in self.sessions:
            own = [value for value in applied if value in session.sent]
            assert own == session.sent[: len(own)]
            assert session.acked <= len(own)
            if self.in_flight is None and session.member.state not in GONE:
                assert session.acked == len(own)

    @invariant()
    def queues_are_bounded_by_credits(self) -> None:
        for session in self.sessions:
            member = session.member
            assert len(member.queue) == len(member.arrivals)
            assert len(member.queue) <= member.received - member.applied <= self.engine.credits
            assert not (member.state in GONE and member.queue)

    @invariant()
    def rounds_advance_one_by_one_when_all_are_done(self) -> None:
        self.listen()
        phase, round_ = self.engine.phase, self.engine.round
        assert self.closed == list(range(len(self.closed)))
        is_closed = phase in (Phase.EVALUATING, Phase.FINISHED) or (
            phase is Phase.CLOSING and isinstance(self.in_flight, BoundaryWork)
        )
        assert round_ == len(self.closed) - is_closed
        if phase is not Phase.TRAINING:
            assert not self.training()
        if phase is not Phase.EVALUATING:
            assert not self.evaluating()

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        self.listen()
        phase = self.engine.phase
        self.has_started |= phase is not Phase.WAITING
        if phase is Phase.WAITING:
            assert len(self.attached()) < (1 if self.has_started else self.clients)
        elif phase is Phase.TRAINING:
            assert self.training()
        elif phase is Phase.EVALUATING:
            assert self.evaluating()
        elif phase is Phase.FINISHED:
            assert all(session.dismissed for session in self.attached())

    def teardown(self) -> None:
        """Whatever has happened, the run can be brought to its end."""
        if not hasattr(self, "engine"):
            return
        for _ in range(1000):
            if self.engine.phase is Phase.FINISHED and self.in_flight is None:
                break
            self.go_on()
            self.listen()
        for session in self.unattached():
            self.engine.attach(session.client_id)
        self.nobody_waits_for_nothing()
        assert self.engine.phase is Phase.FINISHED
        assert self.engine.model is not None
        assert list(self.engine.model.layers) == [1, 2, 3, 4, 5, 6]
        for session in self.attached():
            self.engine.detach(session.client_id, MemberState.LEFT)
        assert self.engine.is_over

    def go_on(self) -> None:
        """One thing that is to be done next."""
        if self.is_performed:
            return self.settle_work()
        if self.in_flight is None:
            self.take_work()
        if self.in_flight is not None:
            return self.perform_work()
        if self.engine.phase is Phase.WAITING:
            return self.join()
        if self.evaluating():
            return self.evaluate(0)
        sending = [session for session in self.unfinished() if self.has_credit(session)]
        if sending:
            return self.send(self.unfinished().index(sending[0]), is_bad=False)
        done = [s for s in self.training() if s.acked_of_round == s.member.steps]
        return self.finish_round(self.training().index(done[0]))


AnyRun.TestCase.settings = settings(
    deadline=None, max_examples=50, stateful_step_count=60, report_multiple_bugs=False
)
TestAnyRun = AnyRun.TestCase
