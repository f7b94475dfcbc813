"""Exit heads: what answers on the device, from an activation.

A head sees the activation only. `linear` is the lightest and sees one number per channel; the
others see where in the image something is, for more parameters and more arithmetic.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Literal

from torch import nn

from hetero_common.models.layers import conv_bn_relu
from hetero_common.models.split import ExitHead

ExitHeadKind = Literal["linear", "grid", "conv", "deep"]

_GRID = 4
_WIDEN = 2
_WIDEST = 4
_KERNEL = {"conv": 3, "deep": 7}
"""Few layers lie before an exit, so it has to look far itself."""


def build_exit(kind: ExitHeadKind, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A fresh head for activations of (B, *shape), giving logits (B, classes).

    Args:
        kind: `linear` pools to one number per channel; `grid` to 4x4; `conv` is a separable 3x3
            convolution of stride 2 to twice the channels, then `linear`; `deep` has as many of
            them, of 7x7, as halve the activation to 4x4, each to twice the channels but to no
            more than four times those of the activation.
        shape: Of one activation. Without height and width every kind is `linear`.
        classes: Size of the logits.
    """
    channels = shape[0]
    if kind == "linear" or len(shape) != 3:
        return ExitHead(channels, classes)
    if kind == "grid":
        return nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(_GRID),
                flatten=nn.Flatten(),
                linear=nn.Linear(channels * _GRID * _GRID, classes),
            )
        )
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    widest = _WIDEST * channels
    for number in range(1, _num_stages(kind, max(shape[1:])) + 1):
        wider = min(_WIDEN * channels, widest)
        stages[f"separable{number}"] = _separable(channels, wider, _KERNEL[kind])
        channels = wider
    return nn.Sequential(stages | {"head": ExitHead(channels, classes)})


def _num_stages(kind: ExitHeadKind, size: int) -> int:
    return 1 if kind == "conv" else max(1, math.ceil(math.log2(size / _GRID)))


def _separable(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    depthwise = conv_bn_relu(in_channels, in_channels, kernel_size, stride=2, groups=in_channels)
    pointwise = conv_bn_relu(in_channels, out_channels, 1)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))
