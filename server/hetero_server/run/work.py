"""Pieces of computing that the engine hands out, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hetero_common.errors import HeteroError
from hetero_server.learning.aggregation import BoundaryResult, Contribution
from hetero_server.learning.shared_weights import SharedWeights
from hetero_server.run.member import Batch, Member
from hetero_server.run.step_outcome import StepOutcome


@dataclass(frozen=True)
class JoinWork:
    """A member needs its server layers."""

    member: Member


@dataclass(frozen=True)
class LeaveWork:
    """A member's server layers can go."""

    member: Member


@dataclass(frozen=True)
class StepWork:
    """The next batches, by the order: of one member, or of several to be mixed."""

    parts: Sequence[tuple[Member, Batch]]


@dataclass(frozen=True)
class ForgetWork:
    """The last step was the member's, and an outlier: BatchNorm's statistics are to forget it."""

    member: Member


@dataclass(frozen=True)
class BoundaryWork:
    """All members have finished the round: aggregate; what they began it with is `shared`."""

    round: int
    contributions: list[Contribution]
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
