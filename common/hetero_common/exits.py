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
_KERNELS = {"conv": (3,), "deep": (7, 7)}
"""Of each separable convolution. Few layers lie before an exit, so it has to look far itself."""


def build_exit(kind: ExitHeadKind, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A fresh head for activations of (B, *shape), giving logits (B, classes).

    Args:
        kind: `linear` pools to one number per channel; `grid` to 4x4; `conv` is a separable 3x3
            convolution of stride 2 to twice the channels, then `linear`; `deep` has two of them
            of 7x7, to four times the channels.
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
    for number, kernel_size in enumerate(_KERNELS[kind], start=1):
        stages[f"separable{number}"] = _separable(channels, _WIDEN * channels, kernel_size)
        channels *= _WIDEN
    return nn.Sequential(stages | {"head": ExitHead(channels, classes)})


def _separable(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    depthwise = conv_bn_relu(in_channels, in_channels, kernel_size, stride=2, groups=in_channels)
    pointwise = conv_bn_relu(in_channels, out_channels, 1)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))
