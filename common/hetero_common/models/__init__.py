"""The models that can be split: each one a `torch.nn.Sequential` whose children are layers 1..L.

A cut layer is a number of this order, so the order is part of what both sides agree on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from hetero_common.errors import SettingsError
from hetero_common.models.factory import is_factory, model_from_factory
from hetero_common.models.mobilenet import mobilenet_v2
from hetero_common.models.resnet import resnet
from hetero_common.models.tinycnn import tinycnn
from hetero_common.models.vgg import vgg11_bn

__all__ = ["MODEL_NAMES", "STEMS", "build_model"]

# (num_classes, width, stem) -> layers
_BUILDERS: dict[str, Callable[[int, int, str], nn.Sequential]] = {
    "resnet18": partial(resnet, blocks_per_stage=(2, 2, 2, 2)),
    "resnet34": partial(resnet, blocks_per_stage=(3, 4, 6, 3)),
    "vgg11_bn": vgg11_bn,
    "mobilenet_v2": mobilenet_v2,
    "tinycnn": tinycnn,
}
MODEL_NAMES = tuple(_BUILDERS)
STEMS = ("cifar", "imagenet")


def build_model(
    name: str, *, num_classes: int, width: int = 64, stem: str = "cifar"
) -> nn.Sequential:
    """Build a model with fresh weights, drawn from torch's global generator.

    Args:
        name: One of `MODEL_NAMES`, or `package.module:factory` for a model of your own, which
            decides its width and stem itself.
        num_classes: Size of the logits.
        width: Channels of the first stage; later stages are multiples of it.
        stem: `cifar` keeps the resolution of small images (about 32x32); `imagenet` reduces it
            early, for larger ones.

    Returns:
        Layers that map images (B, 3, H, W) to logits (B, num_classes).

    Raises:
        SettingsError: The name, the stem or the factory is no good.
    """
    if stem not in STEMS:
        raise SettingsError(f"unknown stem {stem!r}: choose one of {', '.join(STEMS)}")
    if is_factory(name):
        return model_from_factory(name, num_classes)
    if name not in _BUILDERS:
        raise SettingsError(
            f"unknown model {name!r}: choose one of {', '.join(MODEL_NAMES)}, "
            "or name your own as package.module:factory"
        )
    return _BUILDERS[name](num_classes, width, stem)
