"""Who takes part in a run, and in which state each one is."""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hetero_common.codec import Payload
from hetero_common.control import Directive, Evaluation, RoundDone
from hetero_common.errors import HeteroError
from hetero_common.weights import Weights

log = logging.getLogger(__name__)


class MemberState(enum.Enum):
    """Where a client stands; `Member.enter` is the one place that changes it."""

    REGISTERED = "waits for a round to start"
    TRAINING = "sends batches of the current round"
    SYNCING = "has finished its round or evaluates"
    STALE = "lost its connection"
    LEFT = "said goodbye"
    EVICTED = "was sent away"


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
    """A step reached the server model exactly once; losses and accuracies are batch means."""

    round: int
    step: int
    loss: float = 0.0
    accuracy: float = 0.0
    duplicate: bool = False
    feedback: Payload | None = None


@dataclass
class Member:
    """A client of the run.

    Attributes:
        steps: Mini-batches it trains per round.
        received: Steps of the current round that have arrived, in order.
        applied: Steps of the current round that the server model has taken.
        arrivals: Of each queued batch, its place in the order of arrival over all clients.
        outbox: What it is to be told, oldest first; an error ends its stream.
        needs_pull: Its weights are behind the shared ones.
        pending_samples: Samples applied since the last aggregation; its weight there.
    """

    client_id: str
    cut_layer: int
    shard_size: int
    steps: int
    state: MemberState = MemberState.REGISTERED
    attached: bool = False
    received: int = 0
    applied: int = 0
    queue: deque[Batch] = field(default_factory=deque)
    arrivals: deque[int] = field(default_factory=deque)
    outbox: deque[Directive | Ack | HeteroError] = field(default_factory=deque)
    needs_pull: bool = True
    pushed: Weights | None = None
    report: RoundDone | None = None
    evaluation: Evaluation | None = None
    pending_samples: int = 0
    samples: int = 0
    bytes_received: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    round_samples: int = 0

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

    @property
    def takes_part(self) -> bool:
        """Whether the current round or evaluation waits for it."""
        return self.state in (MemberState.TRAINING, MemberState.SYNCING)

    def begin_round(self) -> None:
        """Forget the last round's progress."""
        self.received = self.applied = self.round_samples = self.correct = 0
        self.loss_sum = 0.0
        self.report = self.pushed = None

    def drop_queue(self) -> None:
        """Forget batches that will not be applied."""
        self.queue.clear()
        self.arrivals.clear()

    def book(self, rows: int, loss: float, correct: int) -> None:
        """Count one applied step."""
        self.samples += rows
        self.pending_samples += rows
        self.round_samples += rows
        self.loss_sum += loss * rows
        self.correct += correct

    def round_record(self) -> dict[str, Any]:
        """What is recorded of its round; losses and accuracies are means over the samples."""
        report, samples = self.report, max(1, self.round_samples)
        return {
            "client": self.client_id,
            "cut_layer": self.cut_layer,
            "samples": self.round_samples,
            "server_loss": self.loss_sum / samples,
            "server_train_accuracy": self.correct / samples,
            "exit_loss": report.exit_loss if report else None,
            "exit_train_accuracy": report.exit_accuracy if report else None,
            "bytes_received": self.bytes_received,
        }
