"""When the exit answers and when the server does, and what that is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hetero_common.control import OperatingPoint


def normalized_entropy(probabilities: Tensor) -> Tensor:
    """Entropy over ln(classes), in [0, 1]: (B, classes) -> (B,).

    One threshold means the same for 10 and for 100 classes.
    """
    entropy: Tensor = torch.special.entr(probabilities).sum(dim=1)
    return (entropy / math.log(probabilities.shape[1])).clamp(0.0, 1.0)


def exits_early(entropy: Tensor, threshold: float) -> Tensor:
    """Which images the device answers itself: (B,) bool."""
    return entropy <= threshold


@dataclass(frozen=True)
class Answers:
    """Both answers to the same images.

    Attributes:
        entropy: Normalized entropy of the exit, (N,).
        exit_right: Whether the exit is right, (N,) bool.
        server_right: Whether the server is right, (N,) bool.
    """

    entropy: Tensor
    exit_right: Tensor
    server_right: Tensor

    @classmethod
    def of(cls, exit_: Tensor, server: Tensor, labels: Tensor) -> Answers:
        """From probabilities (N, classes) of exit and server, and labels (N,)."""
        return cls(
            normalized_entropy(exit_),
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
        local = exits_early(self.entropy, threshold)
        right = torch.where(local, self.exit_right, self.server_right)
        return OperatingPoint(threshold, _share(right), _share(~local))

    def curve(self, points: int = 21) -> list[OperatingPoint]:
        """Operating points from offloading everything to offloading nothing.

        The inner thresholds are quantiles of the entropy, so that the offload shares are evenly
        spaced whatever the entropies are.
        """
        shares = torch.linspace(0, 1, points, dtype=torch.float64)[1:-1]
        inner = torch.quantile(self.entropy.double(), shares, interpolation="lower")
        return [self.at(threshold) for threshold in (-1.0, *inner.tolist(), 1.0)]


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
