"""Pushed weights as their change since they were pulled, rounded to bf16.

A change is small against its weight, and so is what rounding it takes away; rounding the weight
itself would swallow the step of a single batch. Only tensors of two and more dimensions travel so:
the weights of convolutions and linear layers, nearly all of the bytes. Vectors (biases, BatchNorm's
statistics) and counters travel as they are, for a rounded variance could be negative.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hetero_common.errors import RefusedInput
from hetero_common.tensors.weights import Weights

_DTYPES = {"bf16": torch.bfloat16}


def pack(weights: Weights, pulled: Weights, wire_dtype: str) -> dict[str, Tensor]:
    """The tensors that a client pushes, each under its name in a file of weights.

    Args:
        weights: What it has trained.
        pulled: What it began with; names and shapes of `weights`.
        wire_dtype: bf16, or fp32: the weights themselves, exactly.
    """
    flat = weights.flat()
    if wire_dtype == "fp32":
        return flat
    before, dtype = pulled.flat(), _DTYPES[wire_dtype]
    return {
        name: (tensor - before[name]).to(dtype) if _is_rounded(tensor) else tensor
        for name, tensor in flat.items()
    }


def unpack(packed: Mapping[str, Tensor], pulled: Weights, wire_dtype: str) -> Weights:
    """The weights that `pack` was given, but for the rounding.

    Args:
        packed: From anybody; the caller looks at what comes of it.
        pulled: What the client began with.
        wire_dtype: As agreed.

    Raises:
        RefusedInput: A tensor has a foreign name, or is no change in the agreed dtype.
    """
    if wire_dtype == "fp32":
        return Weights.from_flat(packed)
    before, flat = pulled.flat(), dict(packed)
    for name, old in before.items():
        if name in flat and _is_rounded(old):
            change = flat[name]
            if change.dtype is not _DTYPES[wire_dtype] or change.shape != old.shape:
                raise RefusedInput(f"{name} is no change of these weights in {wire_dtype}")
            flat[name] = old + change
    return Weights.from_flat(flat)


def _is_rounded(tensor: Tensor) -> bool:
    return tensor.dim() > 1 and tensor.is_floating_point()
