from __future__ import annotations

import pytest
import torch
from torch import nn

from hetero_client.data.torchvision_shim import torchvision
from hetero_common.models import build_model


def tiny(name: str, **settings: str) -> nn.Sequential:
    torch.manual_seed(0)
    return build_model(name, num_classes=3, width=8, **settings)


def test_resnet18_has_readable_layer_names() -> None:
    names = [name for name, _ in tiny("resnet18").named_children()]
    assert names == ["stem", *(f"block{number}" for number in range(1, 9)), "head"]


def test_fresh_weights_are_drawn_as_in_torchvision() -> None:
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(num_classes=10, weights=None).state_dict()
    ours = build_model("resnet18", num_classes=10, stem="imagenet").state_dict()
    for (name, tensor), expected in zip(ours.items(), reference.values(), strict=True):
        if tensor.dim() == 4:  # the other tensors start as constants or are few
            assert tensor.std().item() == pytest.approx(expected.std().item(), rel=0.1), name
        elif "linear" not in name:
            assert torch.equal(tensor, expected), name


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_computes_what_torchvision_computes(name: str) -> None:
    torch.manual_seed(0)
    reference = torchvision.models.get_model(name, weights=None)
    images = torch.randn(2, 3, 64, 64)
    reference.train()(images)  # so that the running statistics are not all 0 and 1
    ours = build_model(name, num_classes=1000, stem="imagenet")

    theirs = reference.state_dict().values()
    state = dict(zip(ours.state_dict(), theirs, strict=True))
    ours.load_state_dict(state)  # checks every shape

    assert torch.equal(ours.eval()(images), reference.eval()(images))
