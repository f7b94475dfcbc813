"""Exit heads: what answers on the device, from an activation.

A head sees the activation only. `linear` is the lightest and sees one number per channel; the
others see where in the image something is, for more parameters and more arithmetic.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from hetero_common.models.layers import conv_bn_relu
from hetero_common.plan import ExitHeadKind
from hetero_common.split import ExitHead

_GRID = 4
_WIDEN = 2


def build_exit(kind: ExitHeadKind, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A fresh head for activations of (B, *shape), giving logits (B, classes).

    Args:
        kind: `linear` pools to one number per channel; `grid` to 4x4; `conv` is a separable
            convolution of stride 2 to twice the channels, then `linear`.
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
    return nn.Sequential(
        OrderedDict(
            depthwise=conv_bn_relu(channels, channels, 3, stride=2, groups=channels),
            pointwise=conv_bn_relu(channels, _WIDEN * channels, 1),
            head=ExitHead(_WIDEN * channels, classes),
        )
    )
