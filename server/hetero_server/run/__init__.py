"""A run: who takes part, whose batch is next, what is computed, who is told what.

It knows no wire, no thread and no clock. Whoever drives it reports what has happened, and computes
the work that it hands out.
"""

from __future__ import annotations

from hetero_server.run.checkpointing import (
    KEPT,
    Saving,
    require_resumable,
    require_unchanged,
    write_if_possible,
)
from hetero_server.run.engine import Engine
from hetero_server.run.member import GONE, Ack, Batch, Member, MemberState
from hetero_server.run.orders import ORDERS, arrival
from hetero_server.run.phase import Phase
from hetero_server.run.results import results_table
from hetero_server.run.served_model import ServedModel
from hetero_server.run.work import BoundaryWork, Outcome, SaveWork, StepWork, Work

__all__ = [
    "GONE",
    "KEPT",
    "ORDERS",
    "Ack",
    "Batch",
    "BoundaryWork",
    "Engine",
    "Member",
    "MemberState",
    "Outcome",
    "Phase",
    "SaveWork",
    "Saving",
    "ServedModel",
    "StepWork",
    "Work",
    "arrival",
    "require_resumable",
    "require_unchanged",
    "results_table",
    "write_if_possible",
]
