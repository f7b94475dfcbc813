"""A strategy, and one step of it."""

from __future__ import annotations

from torch import Tensor

from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.compute.schedules import StepAt
from hetero_common.errors import RefusedInput
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies import STRATEGIES, ClientBatch, Strategy, Surroundings
from hetero_server.settings import StrategySettings


def a_strategy(
    name: str, plan: Plan, compute: Compute, initial: InitialModel, **options: object
) -> Strategy:
    """A strategy as settings name it; a mixed one trains no exits unless it is told to."""
    told = {"strategy": name, "server_exits": False, **options}
    settings = StrategySettings.model_validate(told)
    around = Surroundings(plan, compute, initial.fresh, initial.fresh_exits, settings)
    return STRATEGIES[name](around)


def step(
    strategy: Strategy, client_id: str, activation: Tensor, labels: Tensor, at: StepAt
) -> StepOutcome:
    """Train on one batch of one client; raise what it was refused for."""
    (result,) = strategy.step([ClientBatch(client_id, activation, labels, at)])
    if isinstance(result, RefusedInput):
        raise result
    return result
