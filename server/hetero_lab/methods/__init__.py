"""What hetero-sim can train, by name: the method and what it is held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hetero_lab.methods import centralized, fedavg, isolated, split, splitfed
from hetero_lab.methods.base import Preparation
from hetero_lab.settings import SimulationSettings

__all__ = ["METHODS", "Method"]


@dataclass(frozen=True)
class Method:
    """One entry of the table.

    Attributes:
        prepare: Loads everything and gives the training.
        settings: What it makes of the settings that were given.
    """

    prepare: Preparation
    settings: Callable[[SimulationSettings], SimulationSettings] = lambda settings: settings


METHODS: dict[str, Method] = {
    "split": Method(split.prepare),
    "centralized": Method(centralized.prepare),
    "isolated": Method(isolated.prepare),
    "fedavg": Method(fedavg.prepare),
    "fedavg-prefix": Method(fedavg.prepare_prefixes),
    "splitfed-v1": Method(split.prepare, splitfed.v1),
    "splitfed-v2": Method(split.prepare, splitfed.v2),
}
