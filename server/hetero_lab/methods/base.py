"""What every method of the simulator is: preparation, which bad input can stop, and training."""

from __future__ import annotations

from collections.abc import Callable

from hetero_client.trainer import Shard
from hetero_common.rundir import RunDir
from hetero_lab.settings import SimulationSettings
from hetero_server.roster import Observer

Training = Callable[[RunDir, Observer], None]
"""Trains to the end; writes weights and tells everything that is worth recording."""
Preparation = Callable[[SimulationSettings], Training]
"""Loads and checks everything; raises SettingsError."""


def evaluated_on(settings: SimulationSettings, test: Shard, round_: int) -> Shard:
    """What an evaluation after `round_` takes: the first images of the test split, at last all."""
    last = settings.plan().is_last(round_)
    return test if last else test.first(settings.eval_samples)
