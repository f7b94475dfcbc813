"""Pieces of computing that the engine hands out, and what comes back.

They are values: ids, numbers and tensors, and nothing that a run goes on changing. So they can be
computed in another thread or process, kept, and computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hetero_common.compute.schedules import StepAt
from hetero_common.errors import HeteroError
from hetero_server.learning.aggregation import BoundaryResult, Contribution
from hetero_server.learning.shared_weights import SharedWeights
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.run.member import Batch, Member


@dataclass(frozen=True)
class JoinWork:
    """A client needs its server layers."""

    client_id: str
    cut_layer: int


@dataclass(frozen=True)
class LeaveWork:
    """A client's server layers can go."""

    client_id: str


@dataclass(frozen=True)
class Part:
    """A client's batch in a step.

    Attributes:
        client_id: Whose batch it is.
        membership: Its `Member.membership`: by the time the step is made, somebody else may have
            joined under the same id.
        cut_layer: The last layer that the batch has passed.
        class_counts: The client's training images of each class; empty without logit adjustment.
        at: The client's step that it is of.
        batch: What arrived.
    """

    client_id: str
    membership: int
    cut_layer: int
    class_counts: tuple[int, ...]
    at: StepAt
    batch: Batch

    @classmethod
    def of(cls, member: Member, batch: Batch) -> Part:
        """The part that a member has in a step with its oldest batch."""
        return cls(
            member.client_id,
            member.membership,
            member.cut_layer,
            member.identity.class_counts,
            StepAt(batch.round, batch.step, member.steps),
            batch,
        )


@dataclass(frozen=True)
class StepWork:
    """The next batches, by the order: of one client, or of several to be mixed."""

    parts: Sequence[Part]


@dataclass(frozen=True)
class ForgetWork:
    """The last step was this client's, and an outlier: BatchNorm's statistics are to forget it."""

    client_id: str


@dataclass(frozen=True)
class BoundaryWork:
    """All clients have finished the round: aggregate; what they began it with is `shared`."""

    round: int
    contributions: Sequence[Contribution]
    shared: SharedWeights


@dataclass(frozen=True)
class SaveWork:
    """A round has closed: write down the strategy's state, beside what is given here."""

    round: int
    record: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Saved:
    """The outcome of `SaveWork`: why it failed, or None."""

    failed: str | None


Work = JoinWork | LeaveWork | StepWork | ForgetWork | BoundaryWork | SaveWork
Outcome = Sequence[StepOutcome | HeteroError] | BoundaryResult | Saved | None
