"""SplitFed: split learning with one cut for all, gradients of the server, averaged client layers.

Thapa, Chamikara, Camtepe, Sun, "SplitFed: when federated learning meets split learning", AAAI 2022
(arXiv 2004.12088). There is no exit; what a run reports of exits is of untrained ones.

- v1: the server has a copy per client; they are averaged whenever the clients' layers are.
- v2: the server has one model, which takes the clients' batches one after another.
"""

from __future__ import annotations

from typing import Literal

from hetero_common.errors import SettingsError
from hetero_lab.method import METHODS, Method
from hetero_lab.methods import split
from hetero_lab.settings import SimulationSettings


def v1(settings: SimulationSettings) -> SimulationSettings:
    """The settings that make the split run SplitFedV1."""
    return _with(settings, "averaging")


def v2(settings: SimulationSettings) -> SimulationSettings:
    """The settings that make the split run SplitFedV2."""
    return _with(settings, "sequential")


def _with(
    settings: SimulationSettings, strategy: Literal["averaging", "sequential"]
) -> SimulationSettings:
    if len(set(settings.cuts())) > 1:
        raise SettingsError("SplitFed has one cut for all clients: give one with --cut-layers")
    return settings.model_copy(
        update={
            "strategy": strategy,
            "aggregate_every": 1,
            "client_aggregation": "round",
            "feedback": "gradient",
            "exit_weight": 0.0,
            "exits": "last",
            "exit_head": "linear",  # the one with the fewest bytes, since it is averaged too
        }
    )


METHODS.add("splitfed-v1", "SplitFed with a server model per client")(Method(split.prepare, v1))
METHODS.add("splitfed-v2", "SplitFed with one server model")(Method(split.prepare, v2))
