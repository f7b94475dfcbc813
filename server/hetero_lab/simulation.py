"""Many clients and their server in one process: the same engine, the same trainer, no sockets.

With the orders `interleaved` and `relay` (and with Averaging in any order) the weights are, bit for
bit, those of a networked run of the same settings and client ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor

from hetero_client.data.shard import Shard
from hetero_client.exits.evaluation import evaluate
from hetero_client.exits.rule import ExitRule
from hetero_client.training.trainer import Trainer
from hetero_common.agreement.control import Directive, Evaluate, Finish, StartRound
from hetero_common.errors import HeteroError
from hetero_common.tensors import codec
from hetero_server.run.engine import Engine
from hetero_server.run.member import Ack, Batch, Member, MemberState

Turn = Iterator[None]
"""A client's life; it yields whenever the others may go on."""


class SimulatedClient:
    """A registered client that lives in the simulator instead of in a process of its own.

    It reads like `hetero_client.training.Participation`, with the engine in place of the link.
    """

    def __init__(
        self,
        engine: Engine,
        member: Member,
        trainer: Trainer,
        test: Shard,
        *,
        rule: ExitRule,
        eval_samples: int,
    ) -> None:
        self.member = member
        self.trainer = trainer
        self._engine = engine
        self._test = test
        self._rule = rule
        self._eval_samples = eval_samples
        self._directives: list[Directive] = []
        self._feedback: Tensor | None = None

    def run(self) -> Turn:
        """Take part until the run is over."""
        self._engine.attach(self.member.client_id)
        while True:
            yield from self._until(lambda: self._directives)
            match self._directives.pop(0):
                case StartRound() as start:
                    yield from self._train(start)
                case Evaluate() as request:
                    self._evaluate(request)
                case Finish():
                    self._engine.detach(self.member.client_id, MemberState.LEFT)
                    return

    def _train(self, start: StartRound) -> Turn:
        plan, member = self._engine.plan, self.member
        if start.pull_state:
            self._pull()
        self.trainer.begin_round()
        for step in range(start.steps):
            sent = self.trainer.forward(start.round, step)
            payload = codec.encode(sent.activation, plan.wire, known_finite=True)
            yield from self._until(self._has_credit)
            batch = Batch(start.round, step, payload, sent.labels.tolist())
            self._engine.submit(member.client_id, batch)
            if plan.feedback != "none":
                yield from self._until(lambda: self._feedback is not None)
            self.trainer.backward(start.round, step, self._feedback)
            self._feedback = None
            yield
        yield from self._until(lambda: member.applied == start.steps)
        if start.push_state:
            weights = self._engine.shared.unpack(member.cut_layer, self.trainer.push())
            self._engine.push(member.client_id, start.round, weights)
        self._engine.round_done(member.client_id, self.trainer.round_done(start.round))

    def _evaluate(self, request: Evaluate) -> None:
        if request.pull_state:
            self._pull()
        evaluation = evaluate(
            self.trainer.model,
            self._test if request.last else self._test.first(self._eval_samples),
            self._predict,
            rows=self._engine.plan.predict_rows,
            rule=self._rule,
            round_=request.round,
        )
        self._engine.evaluated(self.member.client_id, evaluation)

    def _predict(self, activations: Iterator[Tensor]) -> Iterator[Tensor]:
        member, wire = self.member, self._engine.plan.wire
        for activation in activations:
            arrived = codec.round_trip(activation, wire)
            answer = self._engine.predict(arrived, member.cut_layer, member.client_id)
            sent = codec.payload_bytes(tuple(activation.shape), wire)
            member.predicted(sent, answer.nbytes)
            yield answer

    def _pull(self) -> None:
        self.trainer.pull(self._engine.pull(self.member))

    def _has_credit(self) -> bool:
        return self.member.received - self.member.applied < self._engine.credits

    def _until(self, satisfied: Callable[[], object]) -> Turn:
        self._listen()
        while not satisfied():
            yield
            self._listen()

    def _listen(self) -> None:
        while self.member.outbox:
            match self.member.outbox.popleft():
                case Ack() as ack:
                    self._feedback = None if ack.feedback is None else codec.decode(ack.feedback)
                case HeteroError() as error:
                    raise error
                case directive:
                    self._directives.append(directive)


def simulate(engine: Engine, clients: list[SimulatedClient]) -> None:
    """Run all clients, in turns, until the last round is done.

    Raises:
        HeteroError: The engine sent a client away.
    """
    turns = [client.run() for client in clients]
    while turns:
        turns = [turn for turn in turns if _advance(turn, partial(_compute, engine))]


def _advance(turn: Turn, compute: Callable[[], None]) -> bool:
    alive = next(turn, StopIteration) is not StopIteration
    compute()
    return alive


def _compute(engine: Engine) -> None:
    while (work := engine.work()) is not None:
        engine.settle(work, engine.perform(work))
