"""A model small enough to train in milliseconds, and batches for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_server.learning.initial_model import InitialModel

MakeBatch = Callable[[int, int], tuple[Tensor, Tensor]]
"""(cut layer, seed) -> activation (6, ...) and labels (6,)."""


@pytest.fixture
def plan() -> Plan:
    """Plain SGD at a constant rate, so that a step has a formula of one line."""
    return Plan(
        model="tinycnn",
        width=4,
        image_size=8,
        classes=3,
        rounds=10,
        steps_per_round=2,
        server_lr=0.1,
        lr_schedule="constant",
        momentum=0.0,
        weight_decay=0.0,
        wire="fp32",
    )


@pytest.fixture
def compute() -> Compute:
    return Compute()


@pytest.fixture
def initial(plan: Plan) -> InitialModel:
    """Six layers: five convolutions with BatchNorm and a head."""
    return InitialModel(plan)


@pytest.fixture
def make_batch(plan: Plan, initial: InitialModel) -> MakeBatch:
    """Draws what a client with that cut layer could send."""

    def make(cut_layer: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        activation = torch.randn(6, *initial.shapes[cut_layer - 1], generator=generator)
        return activation.relu(), torch.randint(0, plan.classes, (6,), generator=generator)

    return make
