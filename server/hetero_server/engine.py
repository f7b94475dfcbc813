"""The run, without a wire, a thread or a clock: members, rounds, work, and who is told what.

Whoever drives the engine (the networked server, the simulator) reports what happened
(`register`, `attach`, `submit`, `push`, `round_done`, `evaluated`, `detach`), takes the next piece
of computing from `work`, runs `perform` on it in its one compute thread, and hands the outcome to
`settle`. What the clients must hear lies in each member's outbox after every call.

    WAITING ──> TRAINING ──> CLOSING ──> EVALUATING (when due) ──> TRAINING ... ──> FINISHED
"""

from __future__ import annotations

import enum
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict

from torch import Tensor

from hetero_common.control import Evaluate, Evaluation, Finish, RoundDone, StartRound
from hetero_common.errors import (
    HeteroError,
    LimitExceeded,
    NotTraining,
    RefusedInput,
    StepGap,
    UnknownSession,
)
from hetero_common.plan import Plan
from hetero_common.weights import Weights
from hetero_server.boundary import BoundaryResult, Contribution
from hetero_server.initial import InitialModel
from hetero_server.members import GONE, Ack, Batch, Member, MemberState
from hetero_server.orders import Order
from hetero_server.performer import Performer
from hetero_server.strategies import Strategy
from hetero_server.work import (
    BoundaryWork,
    JoinWork,
    LeaveWork,
    Outcome,
    StepOutcome,
    StepWork,
    Work,
)

log = logging.getLogger(__name__)

Observer = Callable[..., None]
"""(event, **fields): called for everything a run records."""


class Phase(enum.Enum):
    """Where the run stands."""

    WAITING = "for clients"
    TRAINING = "a round"
    CLOSING = "aggregating"
    EVALUATING = "after a round"
    FINISHED = "all rounds are done"
    SERVING = "predictions only"


class Engine:
    """One run.

    Args:
        plan: What both sides agreed on.
        initial: The model the run starts from.
        strategy: Trains the server's layers.
        order: Whose batch is next.
        clients: How many must be there before the first round.
        credits: Batches that a client may have unacknowledged.
        uniform_weights: Let every client count the same in averages, whatever it contributed.
        observe: Told everything worth recording.
    """

    def __init__(
        self,
        plan: Plan,
        initial: InitialModel,
        strategy: Strategy,
        order: Order,
        *,
        clients: int = 1,
        credits: int = 4,
        uniform_weights: bool = False,
        observe: Observer = lambda event, **fields: None,
    ) -> None:
        self.plan = plan
        self.initial = initial
        self.shared = Weights(dict(initial.weights.layers), dict(initial.weights.exits))
        """What clients start from, and pull after aggregations."""
        self.strategy = strategy
        self.credits = credits
        self.phase = Phase.WAITING
        self.round = 0
        self.members: dict[str, Member] = {}
        self.model: Weights | None = None
        """The assembled full model, once the last round has closed."""
        self._performer = Performer(plan, strategy)
        self._order = order
        self._clients = clients
        self._uniform_weights = uniform_weights
        self._observe = observe
        self._arrivals = itertools.count()
        self._errands: deque[Work] = deque()

    # What happened outside.

    def register(self, client_id: str, cut_layer: int, shard_size: int) -> Member:
        """A client asks to join; the newest registration of an id wins.

        Raises:
            CutLayerOutOfRange: The model has no such cut layer.
            RefusedInput: The shard can not fill a batch.
            NotTraining: The run is over.
        """
        if self.phase in (Phase.FINISHED, Phase.SERVING):
            raise NotTraining("no training goes on here: the run is over or only being served")
        self.initial.require_cut(cut_layer)
        if shard_size < 2:
            raise RefusedInput(f"a shard of {shard_size} images is too small: 2 are the least")
        if client_id in self.members:
            self.detach(
                client_id,
                MemberState.EVICTED,
                UnknownSession(f"a newer process registered as {client_id}: this one can stop"),
            )
        member = Member(client_id, cut_layer, shard_size, self.plan.steps_for(shard_size))
        self.members[client_id] = member
        self._errands.append(JoinWork(member))
        self._observe(
            "joined", client=client_id, cut_layer=cut_layer, shard_size=shard_size, round=self.round
        )
        return member

    def attach(self, client_id: str) -> None:
        """The client's stream is open: it takes part from the next round on."""
        member = self.members[client_id]
        member.attached = True
        if self.phase is Phase.FINISHED:
            self._finish(member)
        self._advance()

    def detach(self, client_id: str, state: MemberState, error: HeteroError | None = None) -> None:
        """The client is gone, or is sent away with an error; nobody waits for it any longer."""
        self._dismiss(self.members[client_id], state, error)

    def _dismiss(self, member: Member, state: MemberState, error: HeteroError | None) -> None:
        if member.state in GONE:
            return
        member.enter(state, str(error) if error else state.value)
        member.attached = False
        member.drop_queue()
        if error is not None:
            member.outbox.append(error)
        self._errands.append(LeaveWork(member))
        self._observe("left", client=member.client_id, state=state.name, round=self.round)
        self._advance()

    def admit(
        self, client_id: str, round_: int, step: int, labels: Sequence[int], rows: int
    ) -> bool:
        """Check an announced batch before its bytes arrive; False for a duplicate.

        Raises:
            StepGap: It skips a step.
            LimitExceeded: The client has no credit left.
            RefusedInput: Its round is not the current one, or its labels make no sense.
        """
        member = self._training_member(client_id, round_)
        if not 0 <= step < member.steps:
            raise RefusedInput(f"round {round_} has steps 0..{member.steps - 1}, not {step}")
        if step < member.received:
            return False
        if step > member.received:
            raise StepGap(round_, step, member.received)
        if member.received - member.applied >= self.credits:
            raise LimitExceeded(f"more than the agreed {self.credits} batches are unacknowledged")
        if not 2 <= rows == len(labels):
            raise RefusedInput(f"a batch has 2 rows at least and a label for each, not {rows}")
        if min(labels) < 0 or max(labels) >= self.plan.classes:
            raise RefusedInput(f"a label is outside 0..{self.plan.classes - 1}: check --classes")
        return True

    def submit(self, client_id: str, batch: Batch) -> None:
        """Queue a whole batch that `admit` let in; acknowledge a duplicate."""
        if not self.admit(client_id, batch.round, batch.step, batch.labels, batch.rows):
            self.members[client_id].outbox.append(Ack(batch.round, batch.step, duplicate=True))
            return
        member = self.members[client_id]
        member.received += 1
        member.bytes_received += batch.payload.data.nbytes
        member.queue.append(batch)
        member.arrivals.append(next(self._arrivals))

    def push(self, client_id: str, round_: int, weights: Weights) -> None:
        """Take a client's prefix and exit of this round, as `read_state` has checked them."""
        self._training_member(client_id, round_).pushed = weights

    def round_done(self, client_id: str, report: RoundDone) -> None:
        """A client has all its acknowledgements and has pushed its state, where asked to."""
        member = self._training_member(client_id, report.round)
        if member.applied < member.steps:
            raise RefusedInput(f"step {member.applied} of round {report.round} is still missing")
        if self._wants_push(report.round) and member.pushed is None:
            raise RefusedInput(f"round {report.round} ends with the client's weights: push them")
        member.report = report
        member.enter(MemberState.SYNCING, f"round {report.round} is done")
        self._advance()

    def evaluated(self, client_id: str, evaluation: Evaluation) -> None:
        """A client has evaluated."""
        member = self.members[client_id]
        asked = self.phase is Phase.EVALUATING and member.takes_part and not member.evaluation
        if not asked or evaluation.round != self.round:
            raise RefusedInput("no evaluation was asked for")
        member.evaluation = evaluation
        self._observe(
            "evaluation",
            client=client_id,
            cut_layer=member.cut_layer,
            bytes_received=member.bytes_received,
            **asdict(evaluation),
        )
        self._advance()

    # What there is to compute.

    def work(self) -> Work | None:
        """The next piece of computing, or None until something else happens."""
        if self._errands:
            return self._errands.popleft()
        if self.phase is Phase.TRAINING:
            member = self._order(self._participants(), self.plan.seed, self.round)
            if member is not None:
                member.arrivals.popleft()
                return StepWork(member, member.queue.popleft())
        return None

    def perform(self, work: Work) -> Outcome:
        """Compute; touches weights and nothing else, so it may run in another thread."""
        return self._performer.perform(work)

    def settle(self, work: Work, outcome: Outcome) -> None:
        """Book what `perform` returned."""
        match work, outcome:
            case StepWork(member, _), HeteroError() as error:
                self._dismiss(member, MemberState.EVICTED, error)
            case StepWork(member, batch), StepOutcome() as result:
                self._book_step(member, batch, result)
            case BoundaryWork(), BoundaryResult() as result:
                self._book_boundary(result)

    def predict(self, activation: Tensor, cut_layer: int, client_id: str | None) -> Tensor:
        """Class probabilities (B, classes); runs in the compute thread."""
        return self.strategy.predict(activation, cut_layer, client_id)

    def weights_for(self, cut_layer: int) -> Weights:
        """What a client with this cut layer pulls: layers 1..cut_layer and the exit after it."""
        layers = {k: state for k, state in self.shared.layers.items() if k <= cut_layer}
        return Weights(layers, {cut_layer: self.shared.exits[cut_layer]})

    def state_bytes(self, cut_layer: int) -> int:
        """Size of the tensors that a client with this cut layer pushes."""
        return self.weights_for(cut_layer).nbytes

    def read_state(self, cut_layer: int, data: bytes) -> Weights:
        """The weights that a client pushed; runs in the compute thread.

        Raises:
            RefusedInput: They do not match the agreed schema, or are not finite.
        """
        weights = Weights.from_bytes(data)
        weights.require_like(self.weights_for(cut_layer))
        return weights

    @property
    def is_over(self) -> bool:
        """Whether the last round is done and every client has taken its leave."""
        return self.phase is Phase.FINISHED and not any(m.attached for m in self.members.values())

    # How it goes on.

    def _participants(self) -> list[Member]:
        return [member for member in self.members.values() if member.takes_part]

    def _training_member(self, client_id: str, round_: int) -> Member:
        member = self.members[client_id]
        if member.state is not MemberState.TRAINING or round_ != self.round:
            raise RefusedInput(f"round {round_} is not the one this client is training")
        return member

    def _wants_push(self, round_: int) -> bool:
        return self.plan.client_aggregation == "round" or self.plan.is_last(round_)

    def _advance(self) -> None:
        match self.phase:
            case Phase.WAITING:
                if sum(m.attached for m in self.members.values()) >= self._clients:
                    self._clients = 1  # later rounds start with whoever is there
                    self._start_round()
            case Phase.TRAINING:
                self._close_round_when_done()
            case Phase.EVALUATING:
                if all(member.evaluation for member in self._participants()):
                    self._next_round()

    def _start_round(self) -> None:
        ready = [member for member in self.members.values() if member.attached]
        self.phase = Phase.TRAINING if ready else Phase.WAITING
        for member in ready:
            member.begin_round()
            member.enter(MemberState.TRAINING, f"round {self.round} starts")
            push = self._wants_push(self.round)
            member.outbox.append(StartRound(self.round, member.steps, member.needs_pull, push))
            member.needs_pull = False

    def _close_round_when_done(self) -> None:
        participants = self._participants()
        if not participants:
            self._start_round()  # again, with whoever waits for one
        elif all(member.state is MemberState.SYNCING for member in participants):
            self.phase = Phase.CLOSING
            self._errands.append(BoundaryWork(self.round, self._contributions(participants)))

    def _contributions(self, participants: list[Member]) -> list[Contribution]:
        return [
            Contribution(
                member.client_id,
                member.cut_layer,
                1.0 if self._uniform_weights else float(member.pending_samples),
                member.pushed,
            )
            for member in sorted(participants, key=lambda member: member.client_id)
        ]

    def _book_step(self, member: Member, batch: Batch, outcome: StepOutcome) -> None:
        member.applied += 1
        member.book(batch.rows, outcome.loss, outcome.correct)
        accuracy = outcome.correct / batch.rows
        member.outbox.append(
            Ack(batch.round, batch.step, outcome.loss, accuracy, feedback=outcome.feedback)
        )

    def _book_boundary(self, result: BoundaryResult) -> None:
        participants = self._participants()
        for member in participants:
            self._observe("round", round=self.round, **member.round_record())
        if result.shared is not None:
            self.shared.layers |= result.shared.layers
            self.shared.exits |= result.shared.exits
            for member in self.members.values():
                member.needs_pull = True
        self.model = result.model
        for member in participants if result.aggregated else ():
            member.pending_samples = 0
        if self.plan.evaluates_after(self.round):
            self._start_evaluation(participants)
        else:
            self._next_round()

    def _start_evaluation(self, participants: list[Member]) -> None:
        self.phase = Phase.EVALUATING
        for member in participants:
            member.evaluation = None
            last = self.plan.is_last(self.round)
            member.outbox.append(Evaluate(self.round, member.needs_pull, last))
            member.needs_pull = False
        self._advance()

    def _next_round(self) -> None:
        if self.plan.is_last(self.round):
            self.phase = Phase.FINISHED
            for member in self.members.values():
                if member.attached:
                    self._finish(member)
            self._observe("finished", rounds=self.plan.rounds)
        else:
            self.round += 1
            self._start_round()

    def _finish(self, member: Member) -> None:
        member.outbox.append(Finish("all rounds are done"))
