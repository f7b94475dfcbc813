"""VGG-11 with BatchNorm (Simonyan and Zisserman 2014, arXiv 1409.1556), one layer per convolution.

The three wide linear layers of the original (124 M parameters) give way to global average pooling
and one linear layer.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from hetero_common.models.layers import conv_bn_relu
from hetero_common.models.networks import MODELS
from hetero_common.models.split import ExitHead

# Per convolution: channels as a multiple of the width, and whether a 2x2 max-pool follows.
_CONVOLUTIONS = (
    (1, True),
    (2, True),
    (4, False),
    (4, True),
    (8, False),
    (8, True),
    (8, False),
    (8, True),
)


@MODELS.add("vgg11_bn", "8 convolutions with BatchNorm (arXiv 1409.1556)")
def vgg11_bn(num_classes: int, width: int, stem: str) -> nn.Sequential:
    """Layers `conv1` ... `conv8`, `head`; both stems are VGG's one, a 3x3 convolution."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for number, (multiple, pool) in enumerate(_CONVOLUTIONS, start=1):
        layer = conv_bn_relu(channels, width * multiple, 3)
        if pool:
            # Rounding up lets the five pools leave a pixel of images below 32x32.
            layer.add_module("pool", nn.MaxPool2d(2, ceil_mode=True))
        layers[f"conv{number}"] = layer
        channels = width * multiple
    layers["head"] = ExitHead(channels, num_classes)
    return nn.Sequential(layers)
