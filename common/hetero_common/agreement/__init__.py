"""What both sides of a run agree on, as values.

The plan, what the sides tell each other at the boundaries of rounds, the steps of a round, the
status of a run, accuracies per class, losses that are adjusted to a client's classes. Nothing here
sends, stores or trains.
"""

from __future__ import annotations

from hetero_common.agreement.classwise import class_accuracies, class_counts
from hetero_common.agreement.control import (
    LONGEST_CURVE,
    Directive,
    Evaluate,
    Evaluation,
    Finish,
    OperatingPoint,
    Report,
    RoundDone,
    StartRound,
)
from hetero_common.agreement.heartbeats import heartbeat_seconds, is_lost
from hetero_common.agreement.logit_adjustment import (
    adjusted_cross_entropy,
    logit_offsets,
    prior_counts,
)
from hetero_common.agreement.plan import Plan
from hetero_common.agreement.status import MemberStatus, RunStatus
from hetero_common.agreement.steps import steps_from_text, steps_to_text

__all__ = [
    "LONGEST_CURVE",
    "Directive",
    "Evaluate",
    "Evaluation",
    "Finish",
    "MemberStatus",
    "OperatingPoint",
    "Plan",
    "Report",
    "RoundDone",
    "RunStatus",
    "StartRound",
    "adjusted_cross_entropy",
    "class_accuracies",
    "class_counts",
    "heartbeat_seconds",
    "is_lost",
    "logit_offsets",
    "prior_counts",
    "steps_from_text",
    "steps_to_text",
]
