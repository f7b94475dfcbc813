"""Accuracy per class, from counts: they can be sent, checked and added up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def class_counts(labels: Tensor, classes: int) -> tuple[int, ...]:
    """Return how many of the labels (N,) int64 each class has."""
    return tuple(torch.bincount(labels, minlength=classes).tolist())


def class_accuracies(right: Sequence[int], samples: Sequence[int]) -> list[float | None]:
    """Share of each class's samples that were right; None for a class without samples."""
    return [hits / count if count else None for hits, count in zip(right, samples, strict=True)]
