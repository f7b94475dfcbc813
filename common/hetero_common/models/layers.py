"""The convolution groups that the models are made of."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution and BatchNorm, initialized as in torchvision (kaiming fan-out; 1 and 0).

    (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride)) for the odd
    kernel sizes used here.
    """
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=False,  # BatchNorm's shift does the same
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))


def conv_bn_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    relu: type[nn.ReLU] | type[nn.ReLU6] = nn.ReLU,
) -> nn.Sequential:
    """`conv_bn` and a rectifier, which may work in place: nobody else holds BatchNorm's output."""
    layer = conv_bn(in_channels, out_channels, kernel_size, stride=stride, groups=groups)
    layer.add_module("relu", relu(inplace=True))
    return layer
