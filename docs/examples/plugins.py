"""A strategy and an optimizer of one's own.

hetero-server --strategy plugins:TwiceStrategy --optimizer plugins:rmsprop ...
hetero-client --optimizer plugins:rmsprop ...
"""

from collections.abc import Sequence
from typing import Any

import torch

from hetero_common.compute.optimizers import Recipe
from hetero_common.errors import RefusedInput
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies import ClientBatch
from hetero_server.learning.strategies.sequential import SequentialStrategy


class TwiceStrategy(SequentialStrategy):
    """One shared server model, which takes each batch two times: for clients with a slow link."""

    def step(self, batches: Sequence[ClientBatch]) -> list[StepOutcome | RefusedInput]:
        """Train on them, and once more; what the second step did is recorded."""
        super().step(batches)
        return super().step(batches)


def rmsprop(group: dict[str, Any], rate: float, recipe: Recipe) -> torch.optim.Optimizer:
    """RMSprop, whose state is in the checkpoints as that of any other optimizer."""
    return torch.optim.RMSprop([group], lr=rate, weight_decay=recipe.weight_decay)
