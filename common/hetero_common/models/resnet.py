"""ResNets of basic blocks (He et al. 2015, arXiv 1512.03385), one layer per block.

With `stem="imagenet"` and width 64 they compute what torchvision's do; the parameters come in the
same order, so its weights can be copied over one by one.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from hetero_common.models.layers import conv_bn, conv_bn_relu
from hetero_common.models.networks import MODELS
from hetero_common.models.split import ExitHead


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_bn_relu(in_channels, out_channels, 3, stride=stride),
            conv_bn(out_channels, out_channels, 3),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv_bn(in_channels, out_channels, 1, stride=stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        # The sum is a new tensor, so the rectifier never reaches x through an identity shortcut.
        y: Tensor = self.relu(self.residual(x) + self.shortcut(x))
        return y


@MODELS.add("resnet18", "residual network of 8 blocks (arXiv 1512.03385)")
def resnet18(num_classes: int, width: int, stem: str) -> nn.Sequential:
    """Layers `stem`, `block1` ... `block8`, `head`."""
    return _resnet(num_classes, width, stem, (2, 2, 2, 2))


@MODELS.add("resnet34", "residual network of 16 blocks")
def resnet34(num_classes: int, width: int, stem: str) -> nn.Sequential:
    """Layers `stem`, `block1` ... `block16`, `head`."""
    return _resnet(num_classes, width, stem, (3, 4, 6, 3))


def _resnet(
    num_classes: int, width: int, stem: str, blocks_per_stage: tuple[int, ...]
) -> nn.Sequential:
    """Layers `stem`, `block1` ..., `head`; each stage after the first doubles the channels."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=_stem(width, stem))
    channels = width
    for stage, num_blocks in enumerate(blocks_per_stage):
        out_channels = width * 2**stage
        for index in range(num_blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            layers[f"block{len(layers)}"] = BasicBlock(channels, out_channels, stride)
            channels = out_channels
    layers["head"] = ExitHead(channels, num_classes)
    return nn.Sequential(layers)


def _stem(width: int, stem: str) -> nn.Sequential:
    if stem == "cifar":
        return conv_bn_relu(3, width, 3)
    layer = conv_bn_relu(3, width, 7, stride=2)
    layer.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
    return layer
