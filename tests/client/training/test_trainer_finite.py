"""The trainer's promise that lets the link send activations without looking at them again."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hetero_client.training.trainer import PrefixTrainer
from hetero_common.errors import NonFinite
from hetero_common.models.exits import EXIT_HEADS
from support.plain_client import PLAN, device_model, some_images


@pytest.mark.parametrize("exit_head", EXIT_HEADS.names())
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nothing_is_given_out_of_which_a_single_value_is_not_finite(
    bad: float, exit_head: str
) -> None:
    plan = PLAN.model_copy(update={"exit_head": exit_head})
    model = device_model(plan)
    trainer = PrefixTrainer(plan, "c", model, some_images(12), 4)
    assert torch.isfinite(trainer.forward(0, 0).activation).all()
    trainer.backward(0, 0)

    def spoil(layer: nn.Module, inputs: object, activation: Tensor) -> Tensor:
        spoilt = activation.clone()
        spoilt[3, 1, 2, 0] = bad
        return spoilt

    model.prefix[-1].register_forward_hook(spoil)
    with pytest.raises(NonFinite, match="the exit's loss on this batch holds NaN or infinity"):
        trainer.forward(0, 1)
