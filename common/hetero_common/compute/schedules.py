"""Learning rates over a run, as pure functions of how far it has come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepAt:
    """One step of a run: `step` of the `steps` that this client trains in `round`."""

    round: int
    step: int
    steps: int
