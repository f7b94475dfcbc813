"""Early exits: when an exit answers, and when the server does.

What that is worth, and how the threshold is chosen. It is handed a way to ask the server, and knows
none itself.
"""

from __future__ import annotations

from hetero_client.exits.chosen_threshold import (
    CALIBRATION_FILE,
    Calibration,
    digest,
    read_calibration,
)
from hetero_client.exits.evaluation import Predict, answer, ask_both, evaluate
from hetero_client.exits.offload import Answer, Inference, Source, in_batches
from hetero_client.exits.rule import DEFAULT_RULE, UNCERTAINTY, Answers, Criterion, ExitRule
from hetero_client.exits.settings import ExitSettings
from hetero_client.exits.thresholds import Target, for_offload, images_needed, lost_images

__all__ = [
    "CALIBRATION_FILE",
    "DEFAULT_RULE",
    "UNCERTAINTY",
    "Answer",
    "Answers",
    "Calibration",
    "Criterion",
    "ExitRule",
    "ExitSettings",
    "Inference",
    "Predict",
    "Source",
    "Target",
    "answer",
    "ask_both",
    "digest",
    "evaluate",
    "for_offload",
    "images_needed",
    "in_batches",
    "lost_images",
    "read_calibration",
]
