"""An engine from settings, for the networked server and for the simulator."""

from __future__ import annotations

from hetero_common.compute.device import Compute
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.strategies import build_strategy, no_exits
from hetero_server.run.checkpointing import Saving
from hetero_server.run.engine import Engine
from hetero_server.run.orders import MIXED_ORDERS, ORDERS
from hetero_server.run.roster import Observer
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
    strategy = build_strategy(
        settings.strategy,
        plan,
        compute,
        initial.fresh,
        fresh_exits=initial.fresh_exits if settings.server_exits else no_exits,
        aggregate_every=settings.aggregate_every,
    )
    # A replica sees its own client only, in order; whose batch is next makes no difference to it.
    orders = MIXED_ORDERS if settings.strategy == "mixed" else ORDERS
    order = orders["arrival" if settings.strategy == "averaging" else settings.order]
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
