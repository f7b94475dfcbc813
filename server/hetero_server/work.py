"""Pieces of computing that the engine hands out, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hetero_common.codec import Payload
from hetero_common.errors import HeteroError
from hetero_server.boundary import BoundaryResult, Contribution
from hetero_server.members import Batch, Member


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
    """The next batch, by the order."""

    member: Member
    batch: Batch


@dataclass(frozen=True)
class BoundaryWork:
    """All members have finished the round: aggregate."""

    round: int
    contributions: list[Contribution]


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


@dataclass(frozen=True)
class StepOutcome:
    """A batch was applied: mean loss, images classified right, and what the client gets back."""

    loss: float
    correct: int
    feedback: Payload | None


Work = JoinWork | LeaveWork | StepWork | BoundaryWork | SaveWork
Outcome = StepOutcome | BoundaryResult | Saved | HeteroError | None
