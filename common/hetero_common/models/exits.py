"""Exit heads: what answers on the device, from an activation.

A head sees the activation only. `linear` is the lightest and sees one number per channel; the
others see where in the image something is, for more parameters and more arithmetic.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from hetero_common.models.layers import conv_bn_relu
from hetero_common.models.split import ExitHead
from hetero_common.registry import Registry

_GRID = 4
_WIDEN = 2
_WIDEST = 4

BuildExit = Callable[[tuple[int, ...], int], nn.Module]
"""(shape of one activation, number of classes) -> a head for (B, *shape), giving (B, classes)."""

EXIT_HEADS: Registry[BuildExit] = Registry("exit head")


def build_exit(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A fresh head for activations of (B, *shape), giving logits (B, classes).

    Args:
        name: Of the head, in `EXIT_HEADS` or the user's own.
        shape: Of one activation, without the batch dimension.
        classes: Size of the logits.

    Raises:
        SettingsError: There is no such head.
    """
    return EXIT_HEADS[name](shape, classes)


@EXIT_HEADS.add("linear", "one number per channel, then one linear layer")
def linear(shape: tuple[int, ...], classes: int) -> nn.Module:
    """The lightest: it pools each channel to one number."""
    return ExitHead(shape[0], classes)


@EXIT_HEADS.add("grid", "4x4 numbers per channel, then one linear layer")
def grid(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Pool to 4x4; without height and width it is `linear`."""
    if len(shape) != 3:
        return linear(shape, classes)
    return nn.Sequential(
        OrderedDict(
            pool=nn.AdaptiveAvgPool2d(_GRID),
            flatten=nn.Flatten(),
            linear=nn.Linear(shape[0] * _GRID * _GRID, classes),
        )
    )


@EXIT_HEADS.add("conv", "a separable 3x3 convolution of stride 2, then linear")
def conv(shape: tuple[int, ...], classes: int) -> nn.Module:
    """One separable 3x3 convolution to twice the channels; without height and width `linear`."""
    return _separable_stages(shape, classes, 3, 1)


@EXIT_HEADS.add("deep", "separable 7x7 convolutions of stride 2 down to 4x4, then linear")
def deep(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build as many separable 7x7 convolutions as halve the activation to 4x4.

    Each has twice the channels of the one before, but no more than four times those of the
    activation. Few layers lie before an exit, so it has to look far itself. Without height and
    width it is `linear`.
    """
    return _separable_stages(shape, classes, 7, _num_stages(max(shape[1:], default=1)))


def _separable_stages(
    shape: tuple[int, ...], classes: int, kernel_size: int, count: int
) -> nn.Module:
    if len(shape) != 3:
        return linear(shape, classes)
    channels, widest = shape[0], _WIDEST * shape[0]
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, count + 1):
        wider = min(_WIDEN * channels, widest)
        stages[f"separable{number}"] = _separable(channels, wider, kernel_size)
        channels = wider
    return nn.Sequential(stages | {"head": ExitHead(channels, classes)})


def _num_stages(size: int) -> int:
    return max(1, math.ceil(math.log2(size / _GRID)))


def _separable(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    depthwise = conv_bn_relu(in_channels, in_channels, kernel_size, stride=2, groups=in_channels)
    pointwise = conv_bn_relu(in_channels, out_channels, 1)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))
