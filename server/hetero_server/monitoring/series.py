"""Curves over the rounds of a run, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Series:
    """Means over clients by round: over all of them, and over those of each cut layer.

    Args:
        names: What is averaged.
        most: Rounds that are kept; beyond, every other one goes.
    """

    def __init__(self, names: Sequence[str], most: int = 500) -> None:
        self._names = names
        self._most = most
        self._rounds: dict[int, dict[int, _Mean]] = {}

    def add(self, round_: int, cut_layer: int, values: Mapping[str, Any]) -> None:
        """Count a client in; values that are None or lacking do not count."""
        cuts = self._rounds.setdefault(round_, {})
        cuts.setdefault(cut_layer, _Mean()).add({name: values.get(name) for name in self._names})
        if len(self._rounds) > self._most:
            kept = sorted(self._rounds)
            self._rounds = {r: self._rounds[r] for r in (*kept[:-1:2], kept[-1])}

    def forget_after(self, round_: int) -> None:
        """Rounds after this one have not happened: the run was taken up at its end."""
        self._rounds = {r: cuts for r, cuts in self._rounds.items() if r <= round_}

    def points(self) -> list[dict[str, Any]]:
        """Return a point per round: `round`, means of `all`, and by cut layer of `cuts`."""
        return [self._point(round_) for round_ in sorted(self._rounds)]

    def newest(self) -> dict[str, Any]:
        """The last of the points."""
        return self._point(max(self._rounds))

    def _point(self, round_: int) -> dict[str, Any]:
        cuts = self._rounds[round_]
        return {
            "round": round_,
            "all": _Mean.over(cuts.values()).values(),
            "cuts": {cut: cuts[cut].values() for cut in sorted(cuts)},
        }


class _Mean:
    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if value is not None:
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1

    def values(self) -> dict[str, float]:
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    @classmethod
    def over(cls, means: Any) -> _Mean:
        joined = cls()
        for mean in means:
            for name, total in mean._sums.items():
                joined._sums[name] = joined._sums.get(name, 0.0) + total
                joined._counts[name] = joined._counts.get(name, 0) + mean._counts[name]
        return joined
