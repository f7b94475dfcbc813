"""Learning rates over a run, as pure functions of how far it has come.

So a run that is resumed continues exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hetero_common.registry import Registry


@dataclass(frozen=True)
class StepAt:
    """One step of a run: `step` of the `steps` that this client trains in `round`."""

    round: int
    step: int
    steps: int

    def progress(self, rounds: int) -> float:
        """Return how much of a run of so many rounds lies before this step, in [0, 1)."""
        return (self.round + self.step / self.steps) / rounds


Schedule = Callable[[float], float]
"""Progress of the run, in [0, 1), -> factor of the learning rate."""

SCHEDULES: Registry[Schedule] = Registry("schedule")


@SCHEDULES.add("constant", "the same all the time")
def constant(progress: float) -> float:
    """The same all the time."""
    return 1.0


@SCHEDULES.add("cosine", "falls to zero over the rounds of the run")
def cosine(progress: float) -> float:
    """Half a period of a cosine, from 1 to 0 (Loshchilov and Hutter, arXiv 1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * progress))
