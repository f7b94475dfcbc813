"""Which values are far beyond those of the other clients.

A step's statistics are held against the recent steps of the other clients: it is an outlier if the
logarithm of one of them is above

    median + 6 x max(MAD, 0.4)        over the last 8 steps of each other client

so above 11 times the usual at least, and more where the others differ among themselves. Every
client counts with as many steps, however fast it is, so that it takes half of the others to shift
the median. Values up to `harmless` count as that: a converged model makes the usual loss and
gradient as small as one likes, and an honest client with harder data, or one that has just come, is
then a hundred times above it.

Pushed weights are held against those of the same round: see `outlying_updates`.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hetero_common.agreement.plan import Plan

_MADS = 6.0
_LEAST_MAD = 0.4  # of logarithms
_RECENT = 8  # steps of each client
_FEWEST = 4  # steps of all others together
_USUAL_GRADIENT, _USUAL_ACTIVATION = 20.0, 10.0
_TIMES_AN_UPDATE = 10.0
_OTHERS_WITH_UPDATES = 2


@dataclass(frozen=True)
class Outlier:
    """A value that is far beyond the others'.

    Attributes:
        statistic: Its name in docs/runs.md.
        usual: Median of the other clients' values.
    """

    statistic: str
    value: float
    usual: float


def harmless(plan: Plan) -> dict[str, float]:
    """Per statistic of a step, what an honest client may always have.

    The loss of guessing, a gradient that is not clipped, and an activation of a usual size.
    """
    return {
        "server_loss": math.log(plan.classes),
        "gradient_norm": plan.grad_clip or _USUAL_GRADIENT,
        "activation_peak": _USUAL_ACTIVATION,
    }


class RecentSteps:
    """The recent steps of every client, to judge the next one by.

    Args:
        harmless: Per statistic, up to which value it is never held against a client.
    """

    def __init__(self, harmless: Mapping[str, float]) -> None:
        self._harmless = harmless
        self._recent: dict[str, deque[Mapping[str, float]]] = {}

    def judge(
        self, client_id: str, step: Mapping[str, float], others: Iterable[str]
    ) -> Outlier | None:
        """The statistic that makes a client's step an outlier among those of others, if one does.

        The step is remembered either way: should all clients change, then so does the usual.
        """
        compared = [recent for other in others for recent in self._recent.get(other, ())]
        found = (self._judge(name, step[name], compared) for name in self._harmless if name in step)
        outlier = next((outlier for outlier in found if outlier is not None), None)
        self._recent.setdefault(client_id, deque(maxlen=_RECENT)).append(dict(step))
        return outlier

    def _judge(
        self, name: str, value: float, compared: Sequence[Mapping[str, float]]
    ) -> Outlier | None:
        least = self._harmless[name]
        if value <= least * math.exp(_MADS * _LEAST_MAD):
            return None  # whatever the others did; saves looking at them
        others = [step[name] for step in compared if name in step]
        if len(others) < _FEWEST:
            return None
        logs = [math.log(max(other, least)) for other in others]
        median = statistics.median(logs)
        mad = statistics.median(abs(log - median) for log in logs)
        if math.log(value) <= median + _MADS * max(mad, _LEAST_MAD):
            return None
        return Outlier(name, value, statistics.median(others))


@dataclass(frozen=True)
class Update:
    """How far a client's weights have moved in a round.

    Attributes:
        norm: Of the change.
        length: Norm of the weights that the client began with.
        steps: How many steps it took.
    """

    norm: float
    length: float
    steps: int


def outlying_updates(statistic: str, updates: Mapping[str, Update]) -> dict[str, Outlier]:
    """Find the clients whose update is no result of training, and say by which value.

    It is longer than the weights themselves, and more than 10 times the median of at least two
    others, in all and per step. An honest update grows with its steps, at most in proportion: who
    trains a large shard is below the others per step, and who trains a small one in all.
    """
    outliers = {}
    for client_id, update in updates.items():
        others = [other for name, other in updates.items() if name != client_id]
        if len(others) < _OTHERS_WITH_UPDATES or update.norm <= update.length:
            continue
        usual = statistics.median(other.norm for other in others)
        per_step = statistics.median(other.norm / max(1, other.steps) for other in others)
        pace = update.norm / max(1, update.steps)
        if update.norm > _TIMES_AN_UPDATE * usual and pace > _TIMES_AN_UPDATE * per_step:
            outliers[client_id] = Outlier(statistic, update.norm, usual)
    return outliers
