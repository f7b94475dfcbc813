"""What every method of the simulator is: preparation, which bad input can stop, and training."""

from __future__ import annotations

from collections.abc import Callable

from hetero_common.rundir import RunDir
from hetero_lab.settings import SimulationSettings
from hetero_server.roster import Observer

Training = Callable[[RunDir, Observer], None]
"""Trains to the end; writes weights and tells everything that is worth recording."""
Preparation = Callable[[SimulationSettings], Training]
"""Loads and checks everything; raises SettingsError."""
