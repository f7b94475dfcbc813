from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from hetero_common.agreement.logit_adjustment import (
    adjusted_cross_entropy,
    logit_offsets,
    prior_counts,
)
from hetero_common.agreement.plan import Plan

PLAN = Plan(classes=3, logit_adjustment=2.0)
LABELS = torch.tensor([0, 0, 1, 0])


def test_offsets_are_tau_times_the_logarithm_of_the_prior_by_hand() -> None:
    assert prior_counts(PLAN, LABELS) == (3, 1, 0)
    offsets = logit_offsets(PLAN, (3, 1, 0))
    assert offsets is not None and offsets.dtype is torch.float32
    missing = 0.5 / 4  # as if the shard had half an image of it
    expected = [2 * math.log(share) for share in (3 / 4, 1 / 4, missing)]
    assert offsets.tolist() == pytest.approx(expected)


def test_a_loss_by_hand() -> None:
    """Two classes, equal logits, a prior of 3 to 1: the frequent class is believed at 9 to 1."""
    offsets = logit_offsets(Plan(classes=2, logit_adjustment=2.0), (30, 10))
    logits = torch.zeros(2, 2)
    loss = adjusted_cross_entropy(logits, torch.tensor([0, 1]), offsets)
    assert float(loss) == pytest.approx((math.log(10 / 9) + math.log(10)) / 2)


def test_an_even_prior_changes_no_loss() -> None:
    offsets = logit_offsets(PLAN, (7, 7, 7))
    logits, targets = torch.randn(8, 3), torch.randint(0, 3, (8,))
    adjusted = adjusted_cross_entropy(logits, targets, offsets)
    torch.testing.assert_close(adjusted, F.cross_entropy(logits, targets))


def test_what_a_client_does_not_have_is_hardly_pushed_down() -> None:
    """The point of it: the gradient at the logit of a missing class all but vanishes."""
    logits = torch.zeros(1, 3, requires_grad=True)
    offsets = logit_offsets(Plan(classes=3, logit_adjustment=1.0), (500, 500, 0))
    adjusted_cross_entropy(logits, torch.tensor([0]), offsets).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert 0 < float(logits.grad[0, 2]) < 1e-3


def test_without_tau_there_is_nothing_to_add_and_nothing_to_tell() -> None:
    plan = Plan(classes=3)
    assert prior_counts(plan, LABELS) == ()
    assert logit_offsets(plan, ()) is None
    logits, targets = torch.randn(8, 3), torch.randint(0, 3, (8,))
    assert torch.equal(
        adjusted_cross_entropy(logits, targets, None), F.cross_entropy(logits, targets)
    )
