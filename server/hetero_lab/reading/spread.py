"""Means and deviations, of clients or of runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Some values in brief.

    Attributes:
        deviation: Standard deviation of the sample (n - 1); None of a single value.
    """

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Measure the values that are there; None if none is."""
        present = [value for value in values if value is not None]
        if not present:
            return None
        deviation = statistics.stdev(present) if len(present) > 1 else None
        return cls(statistics.fmean(present), deviation, len(present))


def mean(values: Iterable[float | None]) -> float | None:
    """Average the values that are there; None if none is."""
    spread = Spread.of(values)
    return None if spread is None else spread.mean
