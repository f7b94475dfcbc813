"""A client of a run: who it is, how far it has come, what has travelled, what it is to be told."""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import Self

from hetero_common.agreement.control import Directive, Evaluate, Evaluation, RoundDone, StartRound
from hetero_common.agreement.steps import steps_to_text
from hetero_common.errors import HeteroError
from hetero_common.records.events import Evaluated, RoundClosed
from hetero_common.tensors.codec import Payload
from hetero_common.tensors.weights import Weights
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.run.tally import Tally

log = logging.getLogger(__name__)


class MemberState(enum.Enum):
    """The state of a client; `Member.enter` is the one place that changes it."""

    REGISTERED = "waits for a round to start"
    TRAINING = "sends batches of the current round"
    SYNCING = "has finished its round or evaluates"
    STALE = "lost its connection, and may come back"
    LEFT = "said goodbye"
    EVICTED = "was sent away, or a newer process has its id"


GONE_FOR_GOOD = frozenset({MemberState.LEFT, MemberState.EVICTED})
GONE = GONE_FOR_GOOD | {MemberState.STALE}


@dataclass(frozen=True)
class Batch:
    """One mini-batch as it arrived: activation (B, ...) on the wire, B labels."""

    round: int
    step: int
    payload: Payload
    labels: Sequence[int]

    @property
    def rows(self) -> int:
        """Images in the batch."""
        return self.payload.shape[0]


@dataclass(frozen=True)
class Ack:
    """A step has reached the server model, now or before, or comes too late to.

    Losses and accuracies are batch means; `duplicate` says that nothing was applied for this copy.
    """

    round: int
    step: int
    loss: float = 0.0
    accuracy: float = 0.0
    duplicate: bool = False
    feedback: Payload | None = None


class Outbox(deque["Directive | Ack | HeteroError"]):
    """What a client is to be told, oldest first; an error ends its stream.

    Attributes:
        wake: Called whenever something is added.
    """

    wake: Callable[[], None] = staticmethod(lambda: None)

    def append(self, item: Directive | Ack | HeteroError) -> None:
        """Add what it is to be told next."""
        super().append(item)
        self.wake()


@dataclass(frozen=True)
class Identity:
    """What a client has registered with.

    Attributes:
        client_id: Its stable name.
        cut_layer: Its last layer.
        shard_size: Its training images.
        steps: Mini-batches that it trains per round.
        class_counts: Its training images of each class; empty without logit adjustment.
    """

    client_id: str
    cut_layer: int
    shard_size: int
    steps: int
    class_counts: tuple[int, ...] = ()


@dataclass
class RoundProgress:
    """How far a client has come in a round; each round begins with a new one.

    Attributes:
        start: What the client was told to train; None before its first round.
        received: Steps that have arrived, in order.
        inherited: How many of these have arrived from the process before this one; they take none
            of its credits.
        applied_steps: Steps that the server model has taken, in this order.
        queue: Batches that wait for their step.
        arrivals: The place of each queued batch in the order of arrival over all clients.
        last_ack: The last acknowledgement, kept for a copy of its step where it has feedback.
        pushed: The client's weights at the end of the round.
        report: What the client has said of the round at its end.
        asked: The evaluation that the client was told to make after it.
        evaluation: What that has come to.
        tally: Sums over the applied steps.
    """

    start: StartRound | None = None
    received: int = 0
    inherited: int = 0
    applied_steps: list[int] = field(default_factory=list)
    queue: deque[Batch] = field(default_factory=deque)
    arrivals: deque[int] = field(default_factory=deque)
    last_ack: Ack | None = None
    pushed: Weights | None = None
    report: RoundDone | None = None
    asked: Evaluate | None = None
    evaluation: Evaluation | None = None
    tally: Tally = field(default_factory=Tally)

    @property
    def applied(self) -> int:
        """The number of steps the server model has taken."""
        return len(self.applied_steps)

    def drop_queue(self) -> None:
        """Forget batches that will not be applied."""
        self.queue.clear()
        self.arrivals.clear()

    def handed_over(self) -> RoundProgress:
        """The same for another process of the client, which shares nothing with this one.

        Batches that are still queued have to be sent again: the new process does not know of them,
        and may use all its credits.
        """
        progress = dataclasses.replace(
            self,
            applied_steps=list(self.applied_steps),
            queue=deque(self.queue),
            arrivals=deque(self.arrivals),
            tally=dataclasses.replace(self.tally),
        )
        if progress.report is None:  # else there is no batch to come
            progress.received -= len(progress.queue)
            progress.drop_queue()
        progress.inherited = progress.received
        return progress


@dataclass
class Traffic:
    """Payload since a client has registered, as it travels, without headers and frames.

    Attributes:
        bytes_received: Activations of its training batches.
        bytes_returned: Feedback on them.
        bytes_pushed: Weights that it has sent.
        bytes_pulled: Weights that it was given.
        bytes_asked: Activations that it has asked predictions for.
        bytes_answered: The probabilities that it got.
    """

    bytes_received: int = 0
    bytes_returned: int = 0
    bytes_pushed: int = 0
    bytes_pulled: int = 0
    bytes_asked: int = 0
    bytes_answered: int = 0

    @property
    def bytes_in(self) -> int:
        """All payload that has come from the client."""
        return self.bytes_received + self.bytes_pushed + self.bytes_asked

    @property
    def bytes_out(self) -> int:
        """All payload that the client was sent."""
        return self.bytes_returned + self.bytes_pulled + self.bytes_answered

    def predicted(self, asked: int, answered: int) -> None:
        """Count the bytes of a prediction."""
        self.bytes_asked += asked
        self.bytes_answered += answered


@dataclass
class Member:
    """A client of the run, as one of its processes: another process of the same id is its heir.

    Attributes:
        identity: What it has registered with.
        membership: A number that its heirs have too, and nobody who joins anew.
        state: Where it stands.
        attached: Its stream is open.
        in_round: The current round counts on it, connected or not.
        released: The current round does not wait for it any longer.
        housed: The strategy holds server layers for it.
        completed: The last round that it has done, or the one before its first; None before that.
        first_round: The first one that it was told to train.
        base: The round whose end it goes on from; None if it starts anew.
        needs_pull: Its weights are behind the shared ones.
        pending_samples: Samples applied since the last aggregation; its weight there.
        samples: All samples that were applied.
        activity: Grows with everything that comes from it and moves the run on.
        heard_at: Seconds since 1970 of its last sign of life, noted by whoever hears it.
        progress: How far it has come in the current round.
        traffic: What has travelled.
        outbox: What it is to be told.
    """

    identity: Identity
    membership: int
    state: MemberState = MemberState.REGISTERED
    attached: bool = False
    in_round: bool = False
    released: bool = False
    housed: bool = False
    completed: int | None = None
    first_round: int | None = None
    base: int | None = None
    needs_pull: bool = True
    pending_samples: int = 0
    samples: int = 0
    activity: int = 0
    heard_at: float | None = None
    progress: RoundProgress = field(default_factory=RoundProgress)
    traffic: Traffic = field(default_factory=Traffic)
    outbox: Outbox = field(default_factory=Outbox)

    @property
    def client_id(self) -> str:
        """Its stable name."""
        return self.identity.client_id

    @property
    def cut_layer(self) -> int:
        """Its last layer."""
        return self.identity.cut_layer

    @property
    def steps(self) -> int:
        """Mini-batches that it trains per round."""
        return self.identity.steps

    @property
    def applied(self) -> int:
        """The number of steps of the current round the server model has taken."""
        return self.progress.applied

    @property
    def waiting_since(self) -> int | None:
        """The place of its oldest queued batch in the order of arrival; None if none is queued."""
        return self.progress.arrivals[0] if self.progress.arrivals else None

    @property
    def is_awaited(self) -> bool:
        """Whether the current round or evaluation waits for it."""
        return self.in_round and not self.released

    @property
    def is_done(self) -> bool:
        """Whether it has done its part of the current round."""
        return self.progress.report is not None and self.applied == self.steps

    def enter(self, state: MemberState, why: str) -> None:
        """Change the state."""
        if state is not self.state:
            log.debug(
                "client %s (cut %d): %s -> %s, %s",
                self.client_id,
                self.cut_layer,
                self.state.name,
                state.name,
                why,
            )
            self.state = state

    def succeed(self) -> Member:
        """Another process of this client takes over, with everything but what was to be said."""
        heir = dataclasses.replace(
            self,
            state=MemberState.REGISTERED,
            attached=False,
            progress=self.progress.handed_over(),
            traffic=dataclasses.replace(self.traffic),
            outbox=Outbox(),
        )
        self.progress = RoundProgress()  # what was in it is the heir's
        return heir

    def begin_round(self, start: StartRound) -> None:
        """Count on it in a new round of its own length."""
        self.in_round, self.released = True, False
        own = dataclasses.replace(start, steps=self.steps, pull_state=self.needs_pull)
        self.progress = RoundProgress(own)
        if self.completed is None:
            self.first_round, self.completed = start.round, start.round - 1

    def enqueue(self, batch: Batch, arrival: int) -> None:
        """Queue the next batch of the round; `arrival` is its place among those of all clients."""
        self.progress.received += 1
        self.traffic.bytes_received += batch.payload.data.nbytes
        self.progress.queue.append(batch)
        self.progress.arrivals.append(arrival)

    def dequeue(self) -> Batch:
        """Its oldest batch, to be applied."""
        self.progress.arrivals.popleft()
        return self.progress.queue.popleft()

    def book(self, batch: Batch, outcome: StepOutcome) -> None:
        """Count one applied step, and acknowledge it."""
        progress = self.progress
        progress.applied_steps.append(batch.step)
        self.samples += batch.rows
        self.pending_samples += batch.rows
        progress.tally.add(outcome, batch.rows)
        accuracy = outcome.correct / batch.rows
        ack = Ack(batch.round, batch.step, outcome.loss, accuracy, feedback=outcome.feedback)
        progress.last_ack = None
        if outcome.feedback is not None:
            progress.last_ack = ack
            self.traffic.bytes_returned += outcome.feedback.data.nbytes
        self.outbox.append(ack)

    def closed(self, round_: int, moved: Mapping[str, Any]) -> RoundClosed:
        """Return what is recorded of a round of its own, with how far its weights have moved."""
        report = self.progress.report
        return RoundClosed(
            round=round_,
            client=self.client_id,
            cut_layer=self.cut_layer,
            steps=self.steps,
            applied=steps_to_text(self.progress.applied_steps),
            **self.progress.tally.record(),
            exit_loss=report.exit_loss if report else None,
            exit_train_accuracy=report.exit_accuracy if report else None,
            **vars(self.traffic),
            **moved,
        )

    def evaluated(self, evaluation: Evaluation) -> Evaluated:
        """Return what is recorded of an evaluation of its own."""
        return Evaluated(
            client=self.client_id,
            cut_layer=self.cut_layer,
            **vars(self.traffic),
            **evaluation.record(),
        )

    def kept(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it, as JSON has it."""
        standing = {name: getattr(self, name) for name in _KEPT}
        return {**vars(self.identity), **standing, **vars(self.traffic)}

    @classmethod
    def restored(cls, kept: Mapping[str, Any], membership: int) -> Self:
        """The member that a checkpoint has kept: it is counted on, and has to come back."""
        identity, traffic = (
            {f.name: kept[f.name] for f in dataclasses.fields(part) if f.name in kept}
            for part in (Identity, Traffic)
        )
        identity["class_counts"] = tuple(identity.get("class_counts", ()))  # JSON has lists only
        return cls(
            Identity(**identity),
            membership,
            state=MemberState.STALE,
            in_round=True,
            housed=True,
            traffic=Traffic(**traffic),
            **{name: kept[name] for name in _KEPT},
        )


_KEPT = ("completed", "needs_pull", "pending_samples", "samples")
"""Fields of a member that a checkpoint keeps beside its identity and its traffic."""
