"""Models by name, each a `torch.nn.Sequential` whose children are the layers 1..L.

A cut layer is a number of this order, so the order is part of what both sides agree on.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from hetero_common.errors import SettingsError
from hetero_common.registry import Registry, current_directory_on_path, import_own, is_own

BuildModel = Callable[[int, int, str], nn.Sequential]
"""(number of classes, width, stem) -> layers with fresh weights."""

MODELS: Registry[BuildModel] = Registry("model")
STEMS = ("cifar", "imagenet")


def build_model(
    name: str, *, num_classes: int, width: int = 64, stem: str = "cifar"
) -> nn.Sequential:
    """Build a model with fresh weights, drawn from torch's global generator.

    Args:
        name: One of `MODELS`, or `package.module:factory` for a model of your own, which is called
            as `factory(num_classes=...)` and decides its width and stem itself.
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
    if not is_own(name):
        return MODELS[name](num_classes, width, stem)
    factory = import_own(name, "model")
    if not callable(factory):
        raise SettingsError(f"model {name!r} is no function: name one that returns the layers")
    with current_directory_on_path():  # it may import more of the user's own
        model = factory(num_classes=num_classes)
    # A subclass may have a forward of its own, which layers run one by one would not follow.
    if type(model) is not nn.Sequential or len(model) < 2:
        raise SettingsError(
            f"model {name!r} returned {_described(model)}: "
            "it must return a plain torch.nn.Sequential of at least 2 layers"
        )
    _keep_activations(model)
    return model


def _keep_activations(model: nn.Sequential) -> None:
    """Stop layers such as `ReLU(inplace=True)` from overwriting the previous layer's activation.

    That activation may be on its way to the server or wait for the exit head's backward pass.
    `hetero_common.models.split.activation_shapes` refuses what stays hidden inside a layer.
    """
    for layer in model:
        if getattr(layer, "inplace", False):
            layer.inplace = False  # type: ignore[assignment]  # typed as if all were submodules


def _described(model: object) -> str:
    kind = type(model).__name__
    return f"{kind} of length {len(model)}" if isinstance(model, nn.Sequential) else kind
