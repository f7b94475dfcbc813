"""One step of a strategy."""

from __future__ import annotations

from torch import Tensor

from hetero_common.compute.schedules import StepAt
from hetero_common.errors import RefusedInput
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies import ClientBatch, Strategy


def step(
    strategy: Strategy, client_id: str, activation: Tensor, labels: Tensor, at: StepAt
) -> StepOutcome:
    """Train on one batch of one client; raise what it was refused for."""
    (result,) = strategy.step([ClientBatch(client_id, activation, labels, at)])
    if isinstance(result, RefusedInput):
        raise result
    return result
