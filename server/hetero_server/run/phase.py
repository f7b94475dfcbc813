"""Where a run stands."""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """The phase of a run."""

    WAITING = "for clients"
    TRAINING = "a round"
    CLOSING = "aggregating"
    EVALUATING = "after a round"
    FINISHED = "all rounds are done"
    SERVING = "predictions only"
