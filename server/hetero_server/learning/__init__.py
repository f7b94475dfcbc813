"""What the server learns with, as tensors.

Its layers, the strategies that train them, averages between rounds, the model that a run starts
from, values that are far beyond those of the others. Nothing here knows a run in progress.
"""

from __future__ import annotations

from hetero_server.learning.aggregation import BoundaryResult, Contribution, cross_boundary
from hetero_server.learning.initial_model import InitialModel, load_run
from hetero_server.learning.outliers import Outlier, RecentSteps, harmless
from hetero_server.learning.pushed_weights import sift
from hetero_server.learning.shared_weights import SharedWeights
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies import (
    STRATEGIES,
    ClientBatch,
    Strategy,
    Surroundings,
    all_at_once,
    one_by_one,
)
from hetero_server.learning.suffix import Suffix

__all__ = [
    "STRATEGIES",
    "BoundaryResult",
    "ClientBatch",
    "Contribution",
    "InitialModel",
    "Outlier",
    "RecentSteps",
    "SharedWeights",
    "StepOutcome",
    "Strategy",
    "Suffix",
    "Surroundings",
    "all_at_once",
    "cross_boundary",
    "harmless",
    "load_run",
    "one_by_one",
    "sift",
]
