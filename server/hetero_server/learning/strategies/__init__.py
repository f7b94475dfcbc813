"""Strategies: how the server's layers are trained on the clients' batches.

A strategy is a file that declares itself to `STRATEGIES`; every file of this folder is looked
through for one. `base` says what it has to do.
"""

from __future__ import annotations

from hetero_server.learning.strategies.base import (
    STRATEGIES,
    ClientBatch,
    FreshLayers,
    Strategy,
    Surroundings,
    all_at_once,
    no_exits,
    one_by_one,
)

__all__ = [
    "STRATEGIES",
    "ClientBatch",
    "FreshLayers",
    "Strategy",
    "Surroundings",
    "all_at_once",
    "no_exits",
    "one_by_one",
]

STRATEGIES.discover(__name__, __path__)
