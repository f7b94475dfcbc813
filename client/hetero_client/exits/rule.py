"""When the exit answers and when the server does, and what that is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hetero_common.agreement.control import OperatingPoint

Criterion = Literal["entropy", "confidence"]


def normalized_entropy(probabilities: Tensor) -> Tensor:
    """Entropy over ln(classes), in [0, 1]: (B, classes) -> (B,).

    One threshold means the same for 10 and for 100 classes.
    """
    entropy: Tensor = torch.special.entr(probabilities).sum(dim=1)
    return (entropy / math.log(probabilities.shape[1])).clamp(0.0, 1.0)


def least_confidence(probabilities: Tensor) -> Tensor:
    """Return what the largest probability lacks to 1, in [0, 1]: (B, classes) -> (B,).

    Over what it lacks where all classes are as likely, so that thresholds compare here too.
    """
    classes = probabilities.shape[1]
    lacking: Tensor = (1 - probabilities.amax(dim=1)) * (classes / (classes - 1))
    return lacking.clamp(0.0, 1.0)


UNCERTAINTY: Mapping[Criterion, Callable[[Tensor], Tensor]] = {
    "entropy": normalized_entropy,
    "confidence": least_confidence,
}
"""How unsure an answer is, 0 to 1: probabilities (B, classes) -> (B,)."""


@dataclass(frozen=True)
class ExitRule:
    """When a device answers itself.

    Attributes:
        threshold: Largest uncertainty that the exit may answer at.
        criterion: What the uncertainty is.
    """

    threshold: float
    criterion: Criterion = "entropy"

    def uncertainty(self, probabilities: Tensor) -> Tensor:
        """Return how unsure the exit is of each answer: (B, classes) -> (B,)."""
        return UNCERTAINTY[self.criterion](probabilities)


DEFAULT_RULE = ExitRule(0.5)


def exits_early(uncertainty: Tensor, threshold: float) -> Tensor:
    """Return which images the device answers itself: (B,) bool."""
    return uncertainty <= threshold


@dataclass(frozen=True)
class Answers:
    """Both answers to the same images.

    Attributes:
        uncertainty: Of the exit, (N,).
        exit_right: Whether the exit is right, (N,) bool.
        server_right: Whether the server is right, (N,) bool.
    """

    uncertainty: Tensor
    exit_right: Tensor
    server_right: Tensor

    @classmethod
    def of(
        cls, exit_: Tensor, server: Tensor, labels: Tensor, criterion: Criterion = "entropy"
    ) -> Answers:
        """Compare probabilities (N, classes) of exit and server with labels (N,)."""
        return cls(
            UNCERTAINTY[criterion](exit_),
            exit_.argmax(dim=1) == labels,
            server.argmax(dim=1) == labels,
        )

    @property
    def exit_accuracy(self) -> float:
        """Accuracy of the exit alone."""
        return _share(self.exit_right)

    @property
    def server_accuracy(self) -> float:
        """Accuracy of the server alone."""
        return _share(self.server_right)

    @property
    def only_server_right(self) -> float:
        """Share of images that are right with the server alone: what offloading can win at most."""
        return _share(self.server_right & ~self.exit_right)

    def at(self, threshold: float) -> OperatingPoint:
        """Accuracy and offload share at a threshold."""
        local = exits_early(self.uncertainty, threshold)
        right = torch.where(local, self.exit_right, self.server_right)
        return OperatingPoint(threshold, _share(right), _share(~local))

    def curve(self, points: int = 21) -> list[OperatingPoint]:
        """Operating points from offloading everything to offloading nothing.

        The inner thresholds are quantiles of the uncertainty, so that the offload shares are evenly
        spaced whatever the uncertainties are.
        """
        shares = torch.linspace(0, 1, points, dtype=torch.float64)[1:-1]
        inner = torch.quantile(self.uncertainty.double(), shares, interpolation="lower")
        return [self.at(threshold) for threshold in (-1.0, *inner.tolist(), 1.0)]


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
