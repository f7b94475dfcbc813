from __future__ import annotations

import pytest
import torch

from hetero_client.data.torchvision_shim import torchvision
from hetero_common.models import build_model
from hetero_common.models.mobilenet import InvertedResidual, mobilenet_v2
from hetero_common.models.split import activation_shapes


def test_it_computes_what_torchvisions_computes() -> None:
    torch.manual_seed(0)
    reference = torchvision.models.mobilenet_v2(weights=None)
    images = torch.randn(2, 3, 64, 64)
    reference.train()(images)  # so that the running statistics are not all 0 and 1
    ours = build_model("mobilenet_v2", num_classes=1000, stem="imagenet")

    theirs = reference.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs, strict=True)))

    assert torch.equal(ours.eval()(images), reference.eval()(images))


@pytest.mark.parametrize(("stem", "size"), [("cifar", 4), ("imagenet", 1)])
def test_the_cifar_stem_does_without_two_of_the_five_halvings(stem: str, size: int) -> None:
    shapes = activation_shapes(mobilenet_v2(10, 8, stem), 32)
    assert shapes[-2][1:] == (size, size)


@pytest.mark.parametrize(
    ("width", "stem", "first", "last"), [(64, 32, 16, 320), (32, 16, 8, 160), (8, 8, 8, 40)]
)
def test_channels_are_multiples_of_8(width: int, stem: int, first: int, last: int) -> None:
    channels = [shape[0] for shape in activation_shapes(mobilenet_v2(10, width, "cifar"), 32)]
    assert (channels[0], channels[1], channels[17]) == (stem, first, last)
    assert channels[18] == 1280  # what the head sees is not made narrower
    assert all(number % 8 == 0 for number in channels[:-1])


@pytest.mark.parametrize(
    ("out_channels", "stride", "has_shortcut"), [(8, 1, True), (8, 2, False), (16, 1, False)]
)
def test_a_block_has_a_shortcut_where_the_shapes_allow_it(
    out_channels: int, stride: int, has_shortcut: bool
) -> None:
    block = InvertedResidual(8, out_channels, stride, expansion=2).eval()
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(x), x + block.residual(x) if has_shortcut else block.residual(x))
