"""What every method of the simulator is: preparation, which bad input can stop, and training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from hetero_client.data.shard import Shard
from hetero_common.agreement.classwise import class_accuracies, class_counts
from hetero_common.records.events import Observer
from hetero_common.records.rundir import RunDir
from hetero_lab.resuming import Snapshots
from hetero_lab.settings import SimulationSettings

Training = Callable[[RunDir, Observer, Snapshots], None]
"""Trains to the end, from where it was left; writes weights and tells what is worth recording."""
Preparation = Callable[[SimulationSettings], Training]
"""Loads and checks everything; raises SettingsError."""


def evaluated_on(settings: SimulationSettings, test: Shard, round_: int) -> Shard:
    """Return the images that an evaluation after `round_` takes: the first ones, at last all."""
    last = settings.plan().is_last(round_)
    return test if last else test.first(settings.eval_samples)


def scores(right: Tensor, test: Shard, classes: int, prefix: str = "") -> dict[str, Any]:
    """Return what an `evaluation` event tells of images that were classified right, (N,) bool.

    Args:
        right: Which ones.
        test: The images.
        classes: Of the plan.
        prefix: Whose accuracies they are, such as `exit_`.
    """
    samples = class_counts(test.labels, classes)
    accuracies = class_accuracies(class_counts(test.labels[right], classes), samples)
    return {
        "samples": len(test.labels),
        "class_samples": list(samples),
        f"{prefix}accuracy": float(right.double().mean()),
        f"{prefix}class_accuracy": accuracies,
    }
