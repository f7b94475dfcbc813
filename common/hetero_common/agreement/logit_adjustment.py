"""Logit adjustment: a loss that does not learn how frequent the classes are where it is trained.

    loss = cross-entropy of (logits + tau * log prior)        in training only

A. K. Menon et al., Long-tail learning via logit adjustment, ICLR 2021 (arXiv 2007.07314); with a
prior for each client of split learning: SCALA (arXiv 2405.04875). Both sides take the prior from
the client's class counts, by this function, so that they add the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hetero_common.agreement.classwise import class_counts
from hetero_common.agreement.plan import Plan

LEAST_IMAGES = 0.5
"""A class that a client does not have counts as if it had half an image of it."""


def prior_counts(plan: Plan, labels: Tensor) -> tuple[int, ...]:
    """Images of each class among labels (N,); empty where the plan makes no use of them."""
    return class_counts(labels, plan.classes) if plan.logit_adjustment else ()


def logit_offsets(plan: Plan, counts: Sequence[int]) -> Tensor | None:
    """Return what is added to the logits in training: (classes,) fp32, or None where nothing is.

    Args:
        plan: Gives tau.
        counts: Of `prior_counts`.
    """
    if not plan.logit_adjustment:
        return None
    total = sum(counts)
    logs = [math.log(max(count, LEAST_IMAGES) / total) for count in counts]
    return torch.tensor([plan.logit_adjustment * log for log in logs], dtype=torch.float32)


def adjusted_cross_entropy(logits: Tensor, targets: Tensor, offsets: Tensor | None) -> Tensor:
    """Mean over the batch of logits (B, classes) with targets (B,)."""
    return F.cross_entropy(logits if offsets is None else logits + offsets, targets)
