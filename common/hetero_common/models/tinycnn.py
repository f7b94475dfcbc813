"""A plain network for tests, demos and the smallest devices: five convolutions, one width."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from hetero_common.models.layers import conv_bn_relu
from hetero_common.models.networks import MODELS
from hetero_common.models.split import ExitHead

_STRIDES = {"cifar": (1, 2, 1, 2, 1), "imagenet": (2, 2, 2, 2, 1)}


@MODELS.add("tinycnn", "five convolutions of one width, for tests and the smallest devices")
def tinycnn(num_classes: int, width: int, stem: str) -> nn.Sequential:
    """Layers `conv1` ... `conv5`, `head`; every convolution has `width` channels."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, stride in enumerate(_STRIDES[stem], start=1):
        layers[f"conv{number}"] = conv_bn_relu(3 if number == 1 else width, width, 3, stride=stride)
    layers["head"] = ExitHead(width, num_classes)
    return nn.Sequential(layers)
