"""Accuracy versus offload share: what uncertainty achieves, what chance would, what could be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hetero_lab.reading.run import Curve

_EVERYTHING = -1e-9
"""Threshold below which no uncertainty lies, close enough to 0 to interpolate from."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Offloading:
    """What offloading gives some clients that share one threshold, each counting the same.

    Attributes:
        shares: Of images that are offloaded, rising.
        accuracies: Of exit and server together, at these shares.
        exit: Accuracy with nothing offloaded.
        server: Accuracy with everything offloaded.
        only_server_right: Share of images that the server answers right and the exit does not.
    """

    shares: Numbers
    accuracies: Numbers
    exit: float
    server: float
    only_server_right: float

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> Offloading:
        """Average at least one curve; between its thresholds, each is a straight line."""
        thresholds = np.unique(np.concatenate([_thresholds(curve) for curve in curves]))
        shares = np.mean([_at(thresholds, c, _shares(c)) for c in curves], axis=0)
        accuracies = np.mean([_at(thresholds, c, _accuracies(c)) for c in curves], axis=0)
        order = np.argsort(shares, kind="stable")
        return cls(
            shares[order],
            accuracies[order],
            exit=float(accuracies[-1]),
            server=float(accuracies[0]),
            only_server_right=float(np.mean([curve.only_server_right for curve in curves])),
        )

    def by_uncertainty(self, share: float) -> float:
        """Accuracy where the least certain images are offloaded."""
        return float(np.interp(share, self.shares, self.accuracies))

    def at_random(self, share: float) -> float:
        """Accuracy where the images that are offloaded are drawn by lot."""
        return self.exit + share * (self.server - self.exit)

    def by_oracle(self, share: float) -> float:
        """The best accuracy that offloading this share can give, if all answers were known.

        Offloaded first is what the server answers right and the exit does not; then what makes no
        difference; last what the exit alone answers right.
        """
        gained = self.only_server_right
        lost = max(0.0, self.exit + gained - self.server)
        return self.exit + min(share, gained) - max(0.0, share - (1.0 - lost))


def _thresholds(curve: Curve) -> Numbers:
    return np.array([max(point.threshold, _EVERYTHING) for point in curve.points])


def _shares(curve: Curve) -> Numbers:
    return np.array([point.offload_share for point in curve.points])


def _accuracies(curve: Curve) -> Numbers:
    return np.array([point.accuracy for point in curve.points])


def _at(thresholds: Numbers, curve: Curve, values: Numbers) -> Numbers:
    own, first = np.unique(_thresholds(curve), return_index=True)
    return np.interp(thresholds, own, values[first])
