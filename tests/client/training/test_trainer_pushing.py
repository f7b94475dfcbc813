"""What a client pushes of what it has trained."""

from __future__ import annotations

import pytest
import torch

from hetero_client.training.trainer import PrefixTrainer
from hetero_common.tensors.weight_delta import unpack
from hetero_common.tensors.weights import Weights
from support.plain_client import device_model, plan_of, some_images


def trained(**changes: object) -> tuple[PrefixTrainer, Weights]:
    """Two steps after a pull; the trainer and what it has pulled."""
    plan = plan_of(**changes)
    pulled = device_model(plan_of(seed=99)).weights()
    trainer = PrefixTrainer(plan, "a", device_model(plan), some_images(24), steps=4)
    trainer.pull(pulled)
    for step in range(2):
        trainer.forward(0, step)
        trainer.backward(0, step)
    return trainer, pulled


def test_averaged_weights_are_pushed_as_what_has_changed_since_they_were_pulled() -> None:
    trainer, pulled = trained(client_aggregation="round", weights_wire="bf16")
    packed = trainer.push()
    name = "layers.1.conv.weight"
    weights = trainer.model.weights().flat()
    assert packed[name].dtype is torch.bfloat16
    torch.testing.assert_close(
        packed[name].float(), weights[name] - pulled.flat()[name], rtol=2**-8, atol=0
    )
    arrived = unpack(packed, pulled, "bf16").flat()
    for key, tensor in weights.items():
        torch.testing.assert_close(arrived[key], tensor, rtol=2**-10, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"client_aggregation": "round", "weights_wire": "fp32"},
        {"client_aggregation": "none", "weights_wire": "bf16"},
    ],
    ids=["asked for", "never pulled again"],
)
def test_else_weights_are_pushed_exactly(changes: dict[str, object]) -> None:
    trainer, _ = trained(**changes)
    weights, packed = trainer.model.weights().flat(), trainer.push()
    assert weights.keys() == packed.keys()
    assert all(torch.equal(packed[name], tensor) for name, tensor in weights.items())
