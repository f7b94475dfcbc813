from __future__ import annotations

import pytest
import torch
from torch import nn

from hetero_common.compute.device import Compute


@pytest.mark.parametrize("channels", [3, 4, 8, 15])
@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("stride", [2, (1, 2)])
def test_a_narrow_shortcut_has_the_outcome_and_the_gradients_of_the_plain_convolution(
    channels: int, side: int, stride: int | tuple[int, int]
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(channels, 6, 1, stride=stride, bias=False)
    adopted = nn.Conv2d(channels, 6, 1, stride=stride, bias=False)
    adopted.load_state_dict(plain.state_dict())
    Compute().adopt(nn.Sequential(adopted))
    images = torch.randn(5, channels, side, side)
    theirs, ours = (images.clone().requires_grad_(True) for _ in range(2))
    expected = plain(theirs)
    actual = adopted(ours.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual.contiguous(), expected)
    expected.square().sum().backward()
    actual.square().sum().backward()
    torch.testing.assert_close(adopted.weight.grad, plain.weight.grad)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_it_is_the_same_however_often_it_is_adopted() -> None:
    convolution = nn.Conv2d(4, 4, 1, stride=2)
    for _ in range(2):
        Compute().adopt(convolution)
    assert convolution(torch.zeros(1, 4, 8, 8)).shape == (1, 4, 4, 4)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(16, 4, 1, stride=2),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 1, stride=2, padding=1),
    ],
)
def test_all_others_are_left_as_they_are(convolution: nn.Conv2d) -> None:
    stride = convolution.stride
    Compute().adopt(convolution)
    assert convolution.stride == stride
    assert not convolution._forward_pre_hooks


def test_narrow_networks_can_be_trained_for_long() -> None:
    """Of a memory that is written beyond its end, something shows after a few hundred steps."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 1, stride=2), nn.Conv2d(8, 8, 1, stride=2)
    )
    compute = Compute()
    compute.adopt(model)
    for step in range(300):
        images = compute.place(torch.randn(4, 3, 32, 32))
        model(images).square().mean().backward()
        held = [torch.empty(size) for size in range(1, 40 + step % 20)]
        assert all(part.numel() for part in held)
