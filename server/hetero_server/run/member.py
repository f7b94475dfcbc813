"""Who takes part in a run, and in which state each one is."""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hetero_common.agreement.control import Directive, Evaluate, Evaluation, RoundDone, StartRound
from hetero_common.agreement.steps import steps_to_text
from hetero_common.errors import HeteroError
from hetero_common.tensors.codec import Payload
from hetero_common.tensors.weights import Weights
from hetero_server.run.step_outcome import StepOutcome, Tally

log = logging.getLogger(__name__)


class MemberState(enum.Enum):
    """Where a client stands; `Member.enter` is the one place that changes it."""

    REGISTERED = "waits for a round to start"
    TRAINING = "sends batches of the current round"
    SYNCING = "has finished its round or evaluates"
    STALE = "lost its connection, and may come back"
    LEFT = "said goodbye"
    EVICTED = "was sent away, or a newer process has its id"


GONE = frozenset({MemberState.STALE, MemberState.LEFT, MemberState.EVICTED})


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


@dataclass
class Member:
    """A client of the run, as one of its processes: another process of the same id is its heir.

    Attributes:
        steps: Mini-batches it trains per round.
        class_counts: Its training images of each class; empty without logit adjustment.
        attached: Its stream is open.
        in_round: The current round counts on it, connected or not.
        released: ... but does not wait for it any longer.
        housed: The strategy holds server layers for it.
        completed: The last round that it has done, or the one before its first; None before that.
        first_round: The first one that it was told to train.
        base: The round whose end it goes on from; None if it starts anew.
        start: What it was told to train last.
        asked: What it was told to evaluate last.
        received: Steps of the current round that have arrived, in order.
        inherited: ... from the process before it; they take none of its credits.
        applied: Steps of the current round that the server model has taken, in this order.
        arrivals: Of each queued batch, its place in the order of arrival over all clients.
        outbox: What it is to be told.
        last_ack: Kept for a copy of the step, where it has feedback.
        needs_pull: Its weights are behind the shared ones.
        pending_samples: Samples applied since the last aggregation; its weight there.
        bytes_received: Activations of its training batches. This and the other bytes are counted
            since it registered, as they travel, without headers and frames.
        bytes_returned: Feedback on them.
        bytes_pushed: Weights that it has sent.
        bytes_pulled: Weights that it was given.
        bytes_asked: Activations that it has asked predictions for.
        bytes_answered: The probabilities that it got.
        heard_at: Seconds since 1970 of its last sign of life, noted by whoever hears it.
        tally: Sums over the applied steps of the current round.
        progress: Grows with everything that comes from it and moves the run on.
    """

    client_id: str
    cut_layer: int
    shard_size: int
    steps: int
    class_counts: tuple[int, ...] = ()
    state: MemberState = MemberState.REGISTERED
    attached: bool = False
    in_round: bool = False
    released: bool = False
    housed: bool = False
    completed: int | None = None
    first_round: int | None = None
    base: int | None = None
    start: StartRound | None = None
    asked: Evaluate | None = None
    received: int = 0
    inherited: int = 0
    applied_steps: list[int] = field(default_factory=list)
    queue: deque[Batch] = field(default_factory=deque)
    arrivals: deque[int] = field(default_factory=deque)
    outbox: Outbox = field(default_factory=Outbox)
    last_ack: Ack | None = None
    needs_pull: bool = True
    pushed: Weights | None = None
    report: RoundDone | None = None
    evaluation: Evaluation | None = None
    pending_samples: int = 0
    samples: int = 0
    bytes_received: int = 0
    bytes_returned: int = 0
    bytes_pushed: int = 0
    bytes_pulled: int = 0
    bytes_asked: int = 0
    bytes_answered: int = 0
    heard_at: float | None = None
    tally: Tally = field(default_factory=Tally)
    progress: int = 0
    _heir: Member | None = None

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
        """Another process of this client takes over, with everything but what was to be said.

        Batches that are still queued have to be sent again: the heir does not know of them, and
        uses all its credits.
        """
        heir = dataclasses.replace(
            self, state=MemberState.REGISTERED, attached=False, outbox=Outbox()
        )
        if heir.report is None:  # else there is no batch to come
            heir.received -= len(heir.queue)
            heir.drop_queue()
        heir.inherited = heir.received
        self.queue, self.arrivals, self.applied_steps = deque(), deque(), []  # the heir's by now
        self.received = 0
        self._heir = heir
        return heir

    @property
    def current(self) -> Member:
        """Itself, or whoever has taken over last."""
        member = self
        while member._heir is not None:
            member = member._heir
        return member

    @property
    def bytes_in(self) -> int:
        """All payload that has come from it."""
        return self.bytes_received + self.bytes_pushed + self.bytes_asked

    @property
    def bytes_out(self) -> int:
        """All payload that it was sent."""
        return self.bytes_returned + self.bytes_pulled + self.bytes_answered

    @property
    def applied(self) -> int:
        """How many steps of the current round the server model has taken."""
        return len(self.applied_steps)

    @property
    def is_awaited(self) -> bool:
        """Whether the current round or evaluation waits for it."""
        return self.in_round and not self.released

    @property
    def is_done(self) -> bool:
        """Whether it has done its part of the current round."""
        return self.report is not None and self.applied == self.steps

    def begin_round(self, start: StartRound) -> None:
        """Count on it in a new round of its own length, and forget the last one's progress."""
        self.in_round, self.released = True, False
        self.start = replace(start, steps=self.steps, pull_state=self.needs_pull)
        if self.completed is None:
            self.first_round, self.completed = start.round, start.round - 1
        self.received = self.inherited = 0
        self.applied_steps = []
        self.tally = Tally()
        self.report = self.pushed = self.last_ack = self.evaluation = self.asked = None

    def enqueue(self, batch: Batch, arrival: int) -> None:
        """Queue the next batch of the round; `arrival` is its place among those of all clients."""
        self.received += 1
        self.bytes_received += batch.payload.data.nbytes
        self.queue.append(batch)
        self.arrivals.append(arrival)

    def dequeue(self) -> Batch:
        """Its oldest batch, to be applied."""
        self.arrivals.popleft()
        return self.queue.popleft()

    def drop_queue(self) -> None:
        """Forget batches that will not be applied."""
        self.queue.clear()
        self.arrivals.clear()

    def book(self, batch: Batch, outcome: StepOutcome) -> None:
        """Count one applied step, and acknowledge it."""
        self.applied_steps.append(batch.step)
        self.samples += batch.rows
        self.pending_samples += batch.rows
        self.tally.add(outcome, batch.rows)
        accuracy = outcome.correct / batch.rows
        ack = Ack(batch.round, batch.step, outcome.loss, accuracy, feedback=outcome.feedback)
        self.last_ack = None
        if outcome.feedback is not None:
            self.last_ack = ack
            self.bytes_returned += outcome.feedback.data.nbytes
        self.outbox.append(ack)

    def predicted(self, asked: int, answered: int) -> None:
        """Count the bytes of a prediction."""
        self.bytes_asked += asked
        self.bytes_answered += answered

    def round_record(self) -> dict[str, Any]:
        """What is recorded of its round."""
        report = self.report
        return {
            "client": self.client_id,
            "cut_layer": self.cut_layer,
            "steps": self.steps,
            "applied": steps_to_text(self.applied_steps),
            **self.tally.record(),
            "exit_loss": report.exit_loss if report else None,
            "exit_train_accuracy": report.exit_accuracy if report else None,
            **self._traffic(),
        }

    def evaluation_record(self, evaluation: Evaluation) -> dict[str, Any]:
        """What is recorded of an evaluation of its own."""
        return {
            "client": self.client_id,
            "cut_layer": self.cut_layer,
            **self._traffic(),
            **evaluation.record(),
        }

    def _traffic(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in TRAFFIC_FIELDS}


TRAFFIC_FIELDS = (
    *("bytes_received", "bytes_returned", "bytes_pushed", "bytes_pulled"),
    *("bytes_asked", "bytes_answered"),
)
"""Fields of a member that count bytes, by the names of docs/runs.md."""

KEPT_FIELDS = (
    *("client_id", "cut_layer", "shard_size", "class_counts", "steps", "completed", "needs_pull"),
    *("pending_samples", "samples", *TRAFFIC_FIELDS),
)
"""Fields of a member that a checkpoint keeps."""
