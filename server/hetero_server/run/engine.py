"""The run, without a wire, a thread or a clock: rounds, work, and who is told what.

Whoever drives the engine (the networked server, the simulator) reports what happened
(`register`, `attach`, `submit`, `push`, `round_done`, `evaluated`, `detach`, `release`), takes the
next piece of computing from `work`, runs `perform` on it in its one compute thread, and hands the
outcome to `settle`. What the clients must hear lies in each member's outbox after every call.

    WAITING ──> TRAINING ──> CLOSING ──> EVALUATING (when due) ──> TRAINING ... ──> FINISHED

The end of a round is where everything is consistent: there the weights are averaged, and there the
run is saved and resumed. A client whose connection breaks still belongs to its round, and to the
next ones, until it is released.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from torch import Tensor

from hetero_common.agreement.control import (
    Directive,
    Evaluate,
    Evaluation,
    Finish,
    RoundDone,
    StartRound,
)
from hetero_common.agreement.plan import Plan
from hetero_common.errors import HeteroError, NotTraining, StepGap
from hetero_common.records.checkpoints import BEFORE_FIRST, Checkpoint
from hetero_common.records.events import CheckpointWritten, Finished, Observer, Resumed
from hetero_common.tensors.weights import Weights
from hetero_server.learning.aggregation import BoundaryResult
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.shared_weights import SharedWeights
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies import Strategy
from hetero_server.run import checks
from hetero_server.run.agenda import Agenda
from hetero_server.run.checkpointing import Saving, restore, save_work
from hetero_server.run.member import Batch, Member, MemberState
from hetero_server.run.orders import Order
from hetero_server.run.performer import Performer
from hetero_server.run.phase import Phase
from hetero_server.run.quarantine import Quarantine
from hetero_server.run.roster import Roster, contributions
from hetero_server.run.work import BoundaryWork, Outcome, Part, Saved, SaveWork, StepWork, Work

_FINISH = Finish("all rounds are done")


class Engine:
    """One run.

    Args:
        plan: What both sides agreed on.
        initial: The model the run starts from.
        strategy: Trains the server's layers.
        order: Whose batch is next.
        clients: How many must be there before the first round.
        credits: Batches that a client may have unacknowledged.
        quarantine: Outliers that send a client away for good; 0: never.
        uniform_weights: Let every client count the same in averages, whatever it contributed.
        observe: Told everything worth recording.
        saving: When and where the run is saved; by default it is not.
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
        quarantine: int = 0,
        uniform_weights: bool = False,
        observe: Observer = lambda event: None,
        saving: Saving | None = None,
    ) -> None:
        self.plan = plan
        self.initial = initial
        self.shared = SharedWeights.of(initial.weights, plan)
        """What clients start from, and pull after aggregations."""
        self.strategy = strategy
        self.credits = credits
        self.phase = Phase.WAITING
        self.round = 0
        self.model: Weights | None = None
        """The assembled full model, once the last round has closed."""
        self._performer = Performer(plan, strategy, saving)
        self._order = order
        self._clients = clients
        self._uniform_weights = uniform_weights
        self._observe = observe
        self._saving = saving
        self._arrivals = itertools.count()
        self._agenda = Agenda()
        self.roster = Roster(plan, initial, self._agenda.add, observe)
        self.members = self.roster.members
        self._quarantine = Quarantine(plan, self.roster, observe, quarantine)

    # What happened outside: coming and going.

    def register(
        self,
        client_id: str,
        cut_layer: int,
        shard_size: int,
        held: Collection[int] = (),
        class_counts: Sequence[int] = (),
    ) -> Member:
        """A client asks to join, or to go on; the newest registration of an id wins.

        Args:
            client_id: Its stable name.
            cut_layer: Its last layer.
            shard_size: Its training images.
            held: Rounds of this run whose end it can go back to.
            class_counts: Its training images of each class, where the plan adjusts logits.

        Raises:
            CutLayerOutOfRange: The model has no such cut layer.
            RefusedInput: The shard cannot fill a batch, or its classes are not told as they must.
            NotTraining: The run is over.
            Quarantined: This client was sent away for what it sent.
        """
        self._quarantine.require_admitted(client_id)
        if self.phase is Phase.FINISHED and client_id not in self.members:
            raise NotTraining
        member = self.roster.register(
            client_id, cut_layer, shard_size, held, self.round, class_counts
        )
        self._advance()
        return member

    def attach(self, client_id: str) -> None:
        """The client's stream is open: it hears what it missed, and takes part."""
        member = self.members[client_id]
        member.attached = True
        member.activity += 1
        if self.phase is Phase.FINISHED:
            member.outbox.append(_FINISH)
        elif member.is_awaited:
            self.roster.take_back(member, self.phase is Phase.EVALUATING, self.round)
        self._advance()

    def detach(self, client_id: str, state: MemberState, error: HeteroError | None = None) -> None:
        """The client is gone; with STALE it may come back, and is waited for."""
        member = self.members[client_id]
        if state is MemberState.STALE:
            self.roster.lose(member, self.round)
        else:
            self.roster.dismiss(member, state, error, self.round)
        self._advance()

    def release(self, client_id: str, why: str) -> None:
        """Go on without the client until the next round; what it has sent in time counts."""
        self.roster.release(self.members[client_id], why, self.round)
        self._advance()

    # What happened outside: training.

    def admit(
        self, client_id: str, round_: int, step: int, labels: Sequence[int], rows: int
    ) -> bool:
        """Check an announced batch before its bytes arrive; False if it is not to be applied.

        Then it is a copy of one that has arrived, or of a round that does not wait for it.

        Raises:
            StepGap: It skips a step.
            LimitExceeded: The client has no credit left.
            RefusedInput: It was not told to train this round, or its labels make no sense.
        """
        member = self.members[client_id]
        member.activity += 1
        if checks.is_late(member, round_, self.round) or 0 <= step < member.progress.received:
            return False
        checks.require_next(member, round_, step, self.credits)
        checks.require_batch(labels, rows, self.plan.classes, member.identity.class_counts)
        return True

    def submit(self, client_id: str, batch: Batch) -> None:
        """Take a whole batch that `admit` has seen, whatever it has said of it.

        The next one is queued. One that is not to be applied is acknowledged, unless its first
        copy is still queued: that will be acknowledged for both.
        """
        member = self.members[client_id]
        progress = member.progress
        if checks.is_late(member, batch.round, self.round) or batch.step < progress.applied:
            member.outbox.append(checks.acknowledge_again(member, batch))
        elif batch.step > progress.received:
            raise StepGap(batch.round, batch.step, progress.received)
        elif batch.step == progress.received:
            member.enqueue(batch, next(self._arrivals))

    def push(self, client_id: str, round_: int, weights: Weights) -> None:
        """Take a client's prefix and exit of this round, as `read_state` has checked them."""
        member = self.members[client_id]
        member.activity += 1
        if not checks.is_late(member, round_, self.round):
            member.progress.pushed = weights
            member.traffic.bytes_pushed += self.shared.pushed_bytes(member.cut_layer)

    def pull(self, member: Member) -> Weights:
        """The weights that a client is to continue with."""
        member.traffic.bytes_pulled += self.shared.pulled_bytes(member.cut_layer)
        return self.shared.for_cut(member.cut_layer)

    def round_done(self, client_id: str, report: RoundDone) -> None:
        """A client has sent everything of a round and has pushed its state, where asked to."""
        member = self.members[client_id]
        member.activity += 1
        checks.require_report(report, self.plan.classes)
        if checks.is_late(member, report.round, self.round):
            return
        checks.require_end(member, report.round, self.plan)
        member.progress.report, member.completed = report, report.round
        member.enter(MemberState.SYNCING, f"round {report.round} is done")
        self._advance()

    def evaluated(self, client_id: str, evaluation: Evaluation) -> None:
        """A client has evaluated."""
        member = self.members[client_id]
        member.activity += 1
        checks.require_report(evaluation, self.plan.classes)
        checks.require_asked(member, evaluation.round)
        member.progress.evaluation = evaluation
        self._observe(member.evaluated(evaluation))
        self._advance()

    # What there is to compute.

    def work(self) -> Work | None:
        """The next piece of computing, or None until something else happens."""
        work = self._agenda.next()
        if work is not None:
            return self._quarantine.cleared(work) if isinstance(work, BoundaryWork) else work
        turn = self.turn()
        if not turn or not all(member.progress.queue for member in turn):
            return None
        return StepWork([Part.of(member, member.dequeue()) for member in turn])

    def turn(self) -> Sequence[Member]:
        """Return the members whose batches are next by the order, arrived or not."""
        if self.phase is not Phase.TRAINING:
            return ()
        turn = self._order(self.roster.awaited(), self.plan.seed, self.round)
        return turn if self.strategy.is_joint else turn[:1]

    def perform(self, work: Work) -> Outcome:
        """Compute; touches weights and nothing else, so it may run in another thread."""
        return self._performer.perform(work)

    def settle(self, work: Work, outcome: Outcome) -> None:
        """Book what `perform` returned."""
        match work, outcome:
            case StepWork(parts), list() as results:
                for part, result in zip(parts, results, strict=True):
                    self._book_step(part, result)
            case BoundaryWork(), BoundaryResult() as result:
                self._book_boundary(result)
            case SaveWork(round_), Saved(failed):
                self._observe(CheckpointWritten(round_, failed))

    def predict(self, activation: Tensor, cut_layer: int, client_id: str | None) -> Tensor:
        """Class probabilities (B, classes); runs in the compute thread."""
        return self.strategy.predict(activation, cut_layer, client_id)

    @property
    def held_bytes(self) -> int:
        """Bytes of the weights and optimizer states that the strategy holds."""
        return self._performer.held_bytes

    @property
    def is_over(self) -> bool:
        """Whether the last round is done and every client has taken its leave."""
        return self.phase is Phase.FINISHED and not any(m.attached for m in self.members.values())

    # How it goes on.

    def begin(self, checkpoint: Checkpoint | None = None) -> None:
        """Go on from a checkpoint of a saved run, or make its first; called before all else."""
        if checkpoint is None:
            self._agenda.add(save_work(BEFORE_FIRST, (), self.shared, None, {}))
            return
        self._observe(Resumed(checkpoint.round))
        if checkpoint.round != BEFORE_FIRST:
            self._resume(checkpoint)

    def _resume(self, checkpoint: Checkpoint) -> None:
        """The members of then belong to the run, and have to come back."""
        restored = restore(checkpoint, self.strategy)
        self.shared.take(restored.shared)
        self.model, self.round = restored.model, checkpoint.round
        self.roster.restore(restored.members)
        self._quarantine.restore(restored.quarantined)
        self._clients = 1
        self._after_boundary()

    def _advance(self) -> None:
        match self.phase:
            case Phase.WAITING:
                if len(self.roster.attached()) >= self._clients:
                    self._clients = 1  # later rounds start with whoever is there
                    self._start_round()
            case Phase.TRAINING:
                self._close_round_when_done()
            case Phase.EVALUATING:
                if all(member.progress.evaluation for member in self.roster.awaited()):
                    self._next_round()

    def _start_round(self) -> None:
        members = self.roster.gather()
        self.phase = Phase.TRAINING if members else Phase.WAITING
        keep_from, save = self._saving.begin(self.round, self.plan) if self._saving else (0, False)
        push = self.plan.pushes_after(self.round)
        start = StartRound(self.round, 0, False, push, keep_from=keep_from, save=save)
        for member in members:
            member.begin_round(start)
            self._tell(member, MemberState.TRAINING, member.progress.start)

    def _tell(self, member: Member, state: MemberState, directive: Directive | None) -> None:
        """Direct a member that is there; one that is not hears it when it comes back."""
        member.needs_pull = False
        if member.attached and directive is not None:
            member.enter(state, f"round {self.round}")
            member.outbox.append(directive)

    def _close_round_when_done(self) -> None:
        awaited = self.roster.awaited()
        if not all(member.is_done for member in awaited):
            return
        participants = self.roster.participants()
        if not participants or (not awaited and self.plan.is_last(self.round)):
            self._start_round()  # again, with whoever is there or waits for one
        else:
            self.phase = Phase.CLOSING
            given = contributions(participants, self._uniform_weights)
            self._agenda.add(BoundaryWork(self.round, given, self.shared.snapshot()))

    def _book_step(self, part: Part, outcome: StepOutcome | HeteroError) -> None:
        member, batch = self.members.get(part.client_id), part.batch
        if member is None or member.membership != part.membership:
            return  # it is gone for good, and maybe somebody else has its name by now
        if isinstance(outcome, HeteroError):
            self.roster.dismiss(member, MemberState.EVICTED, outcome, self.round)
        else:
            start = member.progress.start
            if not member.in_round or start is None or start.round != batch.round:
                return  # it has left, or was given up and its round has closed meanwhile
            member.book(batch, outcome)
            if self._quarantine.judge_step(member, batch, outcome):
                self._agenda.forget(member.client_id)
        self._advance()

    def _book_boundary(self, result: BoundaryResult) -> None:
        participants = self.roster.participants()
        for member in participants:
            self._observe(member.closed(self.round, result.norms[member.client_id]))
            self._quarantine.judge_push(member, result.left_out.get(member.client_id), self.round)
        if result.shared is not None:
            self.shared.take(result.shared)
            for member in self.members.values():
                member.needs_pull = True
        self.model = result.model
        for member in participants if result.aggregated else ():
            member.pending_samples = 0
        if self._saving is not None and self._saving.is_due:
            self._agenda.add(
                save_work(self.round, participants, self.shared, self.model, self._quarantine.held)
            )
        self._after_boundary()

    def _after_boundary(self) -> None:
        if not self.plan.evaluates_after(self.round):
            self._next_round()
            return
        self.phase = Phase.EVALUATING
        for member in self.roster.awaited():
            last = self.plan.is_last(self.round)
            member.progress.evaluation = None
            member.progress.asked = Evaluate(self.round, member.needs_pull, last)
            self._tell(member, MemberState.SYNCING, member.progress.asked)
        self._advance()

    def _next_round(self) -> None:
        if self.plan.is_last(self.round):
            self.phase = Phase.FINISHED
            for member in self.roster.attached():
                member.outbox.append(_FINISH)
            self._observe(Finished(self.plan.rounds))
        else:
            self.round += 1
            self._start_round()
