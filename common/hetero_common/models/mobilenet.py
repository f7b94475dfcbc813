"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), one layer per inverted residual block.

With `stem="imagenet"` and width 64 it computes what torchvision's does in evaluation mode. The
dropout before the classifier is left out: the data here are augmented, and without it a step is a
pure function of weights and batch.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from hetero_common.models.layers import conv_bn, conv_bn_relu
from hetero_common.models.networks import MODELS
from hetero_common.models.split import ExitHead

# Table 2 of the paper: expansion, channels at width 64, blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_conv_bn_relu6 = partial(conv_bn_relu, relu=nn.ReLU6)


class InvertedResidual(nn.Module):
    """Expand, convolve each channel by itself, project back; a shortcut where shapes allow it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.residual = nn.Sequential()
        if expansion != 1:
            self.residual.add_module("expand", _conv_bn_relu6(in_channels, hidden, 1))
        self.residual.add_module(
            "depthwise", _conv_bn_relu6(hidden, hidden, 3, stride=stride, groups=hidden)
        )
        self.residual.add_module("project", conv_bn(hidden, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        y: Tensor = self.residual(x)
        return x + y if self.has_shortcut else y


@MODELS.add("mobilenet_v2", "inverted residuals for small devices (arXiv 1801.04381)")
def mobilenet_v2(num_classes: int, width: int, stem: str) -> nn.Sequential:
    """Layers `stem`, `block1` ... `block17`, `last_conv`, `head`; width 64 is multiplier 1.

    The cifar stem does without the first two of the five halvings.
    """
    multiplier = width / 64
    early_stride = 1 if stem == "cifar" else 2
    channels = _round_channels(32 * multiplier)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=_conv_bn_relu6(3, channels, 3, stride=early_stride)
    )
    for stage, (expansion, base_channels, num_blocks, stride) in enumerate(_STAGES):
        out_channels = _round_channels(base_channels * multiplier)
        for index in range(num_blocks):
            block_stride = (early_stride if stage == 1 else stride) if index == 0 else 1
            block = InvertedResidual(channels, out_channels, block_stride, expansion)
            layers[f"block{len(layers)}"] = block
            channels = out_channels
    features = _round_channels(1280 * max(1.0, multiplier))
    layers["last_conv"] = _conv_bn_relu6(channels, features, 1)
    layers["head"] = ExitHead(features, num_classes)
    return nn.Sequential(layers)


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and never below 90 % (the authors' own rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
