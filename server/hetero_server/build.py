"""An engine from settings, for the networked server and for the simulator."""

from __future__ import annotations

from hetero_common.compute.device import Compute
from hetero_common.records.events import Observer
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.strategies import STRATEGIES, Surroundings
from hetero_server.run.checkpointing import Saving
from hetero_server.run.engine import Engine
from hetero_server.run.orders import ORDERS
from hetero_server.settings import StrategySettings


def build_engine(
    initial: InitialModel,
    settings: StrategySettings,
    compute: Compute,
    *,
    clients: int,
    observe: Observer,
    credits: int = 4,
    saving: Saving | None = None,
) -> Engine:
    """A run that waits for its clients."""
    plan = initial.plan
    build = STRATEGIES[settings.strategy]
    strategy = build(Surroundings(plan, compute, initial.fresh, initial.fresh_exits, settings))
    order = ORDERS[settings.order if strategy.minds_order else "arrival"]
    return Engine(
        plan,
        initial,
        strategy,
        order,
        clients=clients,
        credits=credits,
        quarantine=settings.quarantine,
        uniform_weights=settings.aggregate_weights == "uniform",
        observe=observe,
        saving=saving,
    )
