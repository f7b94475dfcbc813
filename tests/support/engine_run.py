"""An engine whose strategy trains nothing, and what a test does in the place of its clients."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hetero_common.agreement.control import Evaluation, RoundDone
from hetero_common.agreement.plan import Plan
from hetero_common.compute.schedules import StepAt
from hetero_common.errors import RefusedInput
from hetero_common.tensors import codec
from hetero_common.tensors.aggregation import LayerStates
from hetero_common.tensors.weights import Weights
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies import ClientBatch, one_by_one
from hetero_server.run.checkpointing import Saving
from hetero_server.run.engine import Engine
from hetero_server.run.member import Batch, Member
from hetero_server.run.orders import Order, arrival
from hetero_server.run.phase import Phase
from hetero_server.run.work import Work

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
        forgotten: Client and step of which BatchNorm's statistics were to forget.
        wire: How the feedback travels.
        offsets: What the logits of each client's last step were adjusted by.
    """

    is_joint: bool = False
    minds_order: bool = True
    aggregate_every: int = 0
    clients: dict[str, int] = field(default_factory=dict)
    applied: list[tuple[str, StepAt, float]] = field(default_factory=list)
    drawn: dict[tuple[str, StepAt], float] = field(default_factory=dict)
    feedback: Tensor | None = None
    wire: str = "fp32"
    forgotten: list[tuple[str, int]] = field(default_factory=list)
    offsets: dict[str, Tensor | None] = field(default_factory=dict)

    def add(self, client_id: str, cut_layer: int) -> None:
        self.clients[client_id] = cut_layer

    def remove(self, client_id: str) -> None:
        self.clients.pop(client_id, None)

    def step(self, batches: Sequence[ClientBatch]) -> list[StepOutcome | RefusedInput]:
        return one_by_one(self._train, batches)

    def _train(self, batch: ClientBatch) -> StepOutcome:
        client_id, activation, at = batch.client_id, batch.activation, batch.at
        assert client_id in self.clients, "a step of a client that was never added"
        self.offsets[client_id] = batch.offsets
        self.applied.append((client_id, at, float(activation[0, 0])))
        self.drawn[client_id, at] = float(torch.rand(()))
        peak = float(activation.abs().max())
        feedback = None if self.feedback is None else codec.encode(self.feedback, self.wire)
        return StepOutcome(0.5, 1, feedback, gradient_norm=2.0, activation_peak=peak)

    def nbytes(self) -> int:
        return 0

    def forget_statistics(self, client_id: str) -> None:
        self.forgotten.append((client_id, self.applied[-1][1].step))

    def copies(self, round_: int, last: bool) -> Mapping[str, Weights]:
        if not self.aggregate_every or (round_ + 1) % self.aggregate_every:
            return {}
        return {client_id: Weights({6: self.layers()[6]}) for client_id in self.clients}

    def adopt(self, averaged: Weights) -> None:
        assert list(averaged.layers) == [6]

    def predict(self, activation: Tensor, cut_layer: int, client_id: str | None) -> Tensor:
        return torch.full((len(activation), PLAN.classes), 1 / PLAN.classes)

    def checkpoint(self) -> Mapping[str, Tensor]:
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        assert not tensors

    def layers(self) -> LayerStates:
        return initial_model().weights.layers


def a_batch(round_: int, step: int, value: float = 0.0, rows: int = 2) -> Batch:
    activation = torch.full((rows, 2), value)
    data = memoryview(bytearray(activation.numpy().tobytes()))
    payload = codec.Payload("fp32", (rows, 2), data)  # `encode` would refuse NaN
    return Batch(round_, step, payload, [0] * rows)


def hand_in(engine: Engine, client_id: str, batch: Batch) -> None:
    """Announce a batch, and hand it over whole, as the service does."""
    engine.admit(client_id, batch.round, batch.step, batch.labels, batch.rows)
    engine.submit(client_id, batch)


def an_evaluation(round_: int) -> Evaluation:
    return Evaluation(round_, 10, 0.5, 0.6, 0.4, 0.7, 0.3)


class Run:
    """An engine, and what its clients would do with it, call by call."""

    def __init__(
        self,
        clients: int = 1,
        *,
        credits: int = 4,
        quarantine: int = 0,
        order: Order = arrival,
        is_joint: bool = False,
        uniform_weights: bool = False,
        saving: Saving | None = None,
        **changes: object,
    ) -> None:
        self.plan = PLAN.model_copy(update=changes)
        self.strategy = FakeStrategy(is_joint, wire=self.plan.wire)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.engine = Engine(
            self.plan,
            initial_model(),
            self.strategy,
            order,
            clients=clients,
            credits=credits,
            quarantine=quarantine,
            uniform_weights=uniform_weights,
            observe=lambda event: self.events.append((event.kind, event.record())),
            saving=saving,
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
            hand_in(self.engine, client_id, a_batch(self.engine.round, step, value))

    def push(self, client_id: str) -> None:
        weights = self.engine.shared.for_cut(self.member(client_id).cut_layer)
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
            self.train_from(client_id, 0)

    def train_from(self, client_id: str, first_step: int) -> None:
        """The rest of a client's round."""
        for step in range(first_step, self.member(client_id).steps):
            self.send(client_id, step)
            self.work()
        self.done(client_id)

    def round(self, *client_ids: str) -> None:
        """The current round of these clients with its boundary, evaluation included."""
        round_ = self.engine.round
        self.train(*client_ids)
        self.work()
        if self.phase() is Phase.EVALUATING:
            for client_id in client_ids:
                self.engine.evaluated(client_id, an_evaluation(round_))


def drain(member: Member) -> list[object]:
    messages = list[object](member.outbox)
    member.outbox.clear()
    return messages


def a_pair(rounds: int = 3) -> Run:
    """Two clients in round 1, nothing of it sent."""
    run = Run(clients=2, rounds=rounds)
    run.join("a")
    run.join("b")
    run.round("a", "b")
    run.heard("a"), run.heard("b")
    return run
