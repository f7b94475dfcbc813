"""Strategies by name: one file each behind the interface of `base`."""

from __future__ import annotations

from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_server.learning.strategies.averaging import Averaging
from hetero_server.learning.strategies.base import (
    ClientBatch,
    FreshLayers,
    Strategy,
    all_at_once,
    no_exits,
    one_by_one,
)
from hetero_server.learning.strategies.mixed import Mixed
from hetero_server.learning.strategies.sequential import Sequential

__all__ = [
    "ClientBatch",
    "FreshLayers",
    "Strategy",
    "all_at_once",
    "build_strategy",
    "no_exits",
    "one_by_one",
]


def build_strategy(
    name: str,
    plan: Plan,
    compute: Compute,
    fresh: FreshLayers,
    *,
    fresh_exits: FreshLayers = no_exits,
    aggregate_every: int = 1,
) -> Strategy:
    """The strategy of this name: `sequential`, `averaging` or `mixed`.

    `fresh_exits` are for `mixed`, which trains them on the server too; `aggregate_every` is the
    number of rounds between aggregations of `averaging`.
    """
    match name:
        case "sequential":
            return Sequential(plan, compute, fresh)
        case "mixed":
            return Mixed(plan, compute, fresh, fresh_exits)
    return Averaging(plan, compute, fresh, aggregate_every)
