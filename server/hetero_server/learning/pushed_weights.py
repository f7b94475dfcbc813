"""How far the weights that clients push have moved, and which are left out of the averages."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from hetero_common.tensors.aggregation import RUNNING_MEAN, RUNNING_VARIANCE
from hetero_server.learning.aggregation import Contribution
from hetero_server.learning.outliers import Outlier, Update, outlying_updates
from hetero_server.learning.shared_weights import SharedWeights, linear, norm, paired

UPDATES = ("update_norm", "buffers_norm")
"""Changes that are measured: of the weights, and of BatchNorm's running means and deviations."""


def measure(contribution: Contribution, shared: SharedWeights) -> dict[str, Update]:
    """Measure a pushed update under each name of `UPDATES`; empty if nothing was pushed."""
    pushed = contribution.pushed
    if pushed is None:
        return {}
    changes, lengths = dict.fromkeys(UPDATES, 0.0), dict.fromkeys(UPDATES, 0.0)
    for name, tensor, old in paired(pushed, shared.for_cut(contribution.cut_layer)):
        if not old.is_floating_point():
            continue
        kind = UPDATES[name.endswith((RUNNING_MEAN, RUNNING_VARIANCE))]
        before = linear(name, old)
        changes[kind] += norm(linear(name, tensor) - before) ** 2
        lengths[kind] += norm(before) ** 2
    return {
        kind: Update(math.sqrt(changes[kind]), math.sqrt(lengths[kind]), contribution.steps)
        for kind in UPDATES
    }


@dataclasses.dataclass(frozen=True)
class Sifted:
    """What clients contribute, without the weights that are left out.

    Attributes:
        contributions: Those of all clients.
        norms: Per client, the norms that `UPDATES` names; None if nothing was pushed.
        left_out: Whose weights are missing now, and why.
    """

    contributions: list[Contribution]
    norms: Mapping[str, Mapping[str, float | None]]
    left_out: Mapping[str, Outlier]


def sift(contributions: Sequence[Contribution], shared: SharedWeights) -> Sifted:
    """Measure what was pushed, and leave out what is no result of training."""
    measured = {given.client_id: measure(given, shared) for given in contributions}
    left_out: dict[str, Outlier] = {}
    for kind in UPDATES:
        updates = {client_id: found[kind] for client_id, found in measured.items() if found}
        left_out |= outlying_updates(kind, updates)
    kept = [
        dataclasses.replace(given, pushed=None) if given.client_id in left_out else given
        for given in contributions
    ]
    norms = {
        client_id: {kind: found[kind].norm if found else None for kind in UPDATES}
        for client_id, found in measured.items()
    }
    return Sifted(kept, norms, left_out)
