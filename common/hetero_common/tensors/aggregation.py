"""Cross-layer averaging: one mean per layer over whoever holds that layer.

    theta_k <- sum_{i holds k} w_i theta_{i,k} / sum_{i holds k} w_i

Parameters are averaged. BatchNorm's running mean is averaged, its running variance as a second
moment, E[var] + Var[mean], so that the result is the variance of the pooled data. Integer buffers
(`num_batches_tracked`) take the maximum. Every other buffer is averaged; none is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]
"""State dict of one layer."""
LayerStates = dict[int, State]
"""State dicts by layer number, layer 1 first in the model."""

RUNNING_MEAN, RUNNING_VARIANCE = "running_mean", "running_var"
BATCHES_TRACKED = "num_batches_tracked"
"""How the names of BatchNorm's buffers end."""


def cross_layer_average(
    states: Sequence[Mapping[int, Mapping[str, Tensor]]], weights: Sequence[float]
) -> LayerStates:
    """Average each layer over the members of `states` that hold it.

    Args:
        states: Per holder, its layers. Holders of a layer hold the same names, shapes and dtypes.
        weights: Per holder, its weight >= 0, e.g. samples seen. Where all holders of a layer have
            weight zero, they count equally.

    Returns:
        Every layer that somebody holds. Tensors are fresh; a layer held once is its exact copy,
        and so is the average of equal copies.

    Raises:
        ValueError: The lengths differ or a weight is negative.
    """
    if len(states) != len(weights) or any(weight < 0 for weight in weights):
        raise ValueError("cross_layer_average takes one weight >= 0 per holder")
    layers = sorted({number for layers in states for number in layers})
    averaged: LayerStates = {}
    for number in layers:
        held = [(s[number], w) for s, w in zip(states, weights, strict=True) if number in s]
        averaged[number] = _average_state([s for s, _ in held], [w for _, w in held])
    return averaged


def _average_state(holders: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> State:
    if not any(weights):
        weights = [1.0] * len(holders)
    with torch.no_grad():
        means = {
            name: _average_tensor([holder[name] for holder in holders], weights)
            for name in holders[0]
        }
        for name in means:
            if name.endswith(RUNNING_VARIANCE):
                mean_name = name.removesuffix(RUNNING_VARIANCE) + RUNNING_MEAN
                if mean_name in means:
                    means[name] = _pooled_variance(holders, weights, name, mean_name, means)
    return means


def _average_tensor(copies: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    if not copies[0].is_floating_point():
        return torch.stack(list(copies)).amax(dim=0)
    # A running mean: unlike a weighted sum it leaves equal copies bit for bit as they are.
    average, total = copies[0].detach().clone(), weights[0]
    for copy, weight in zip(copies[1:], weights[1:], strict=True):
        total += weight
        if weight:
            average += (copy - average) * (weight / total)
    return average


def _pooled_variance(
    holders: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float],
    name: str,
    mean_name: str,
    means: State,
) -> Tensor:
    moments = [h[name] + (h[mean_name] - means[mean_name]).square() for h in holders]
    return _average_tensor(moments, weights)
