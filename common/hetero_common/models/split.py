"""Cutting a model in two, and what both sides need to know about its layers.

Layers are numbered 1..L. Cut layer l gives the client layers 1..l (the prefix) and the server
layers l+1..L (the suffix).
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hetero_common.errors import CutLayerOutOfRange, SettingsError


class ExitHead(nn.Module):
    """Logits from an activation: global average pool, then one linear layer.

    A model's own head is the same module; it is the last exit.

    Args:
        in_channels: Channels of the activation.
        num_classes: Size of the logits.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, num_classes)

    def forward(self, activation: Tensor) -> Tensor:
        """(B, in_channels, ...) -> (B, num_classes)."""
        if activation.dim() > 2:
            activation = activation.mean(dim=tuple(range(2, activation.dim())))
        logits: Tensor = self.linear(activation)
        return logits


def split_model(model: nn.Sequential, cut_layer: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Cut a model after layer `cut_layer`.

    Returns:
        Prefix and suffix. They share the model's parameters and keep its layers' names, so a state
        dict of either is a part of the model's.

    Raises:
        CutLayerOutOfRange: `cut_layer` is not one of 1..L-1.
    """
    layers = named_layers(model)
    if not 1 <= cut_layer < len(layers):
        raise CutLayerOutOfRange(cut_layer, [name for name, _ in layers])
    prefix, suffix = OrderedDict(layers[:cut_layer]), OrderedDict(layers[cut_layer:])
    return nn.Sequential(prefix), nn.Sequential(suffix)


def named_layers(model: nn.Sequential) -> list[tuple[str, nn.Module]]:
    """Name and module of each layer, layer 1 first."""
    # named_children() would skip a module that serves as two layers, such as one ReLU.
    return list(zip(model._modules, model, strict=True))


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Run in evaluation mode without gradients, then give every submodule its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(False)
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def activation_shapes(model: nn.Sequential, image_size: int) -> list[tuple[int, ...]]:
    """Shape of each layer's output without the batch dimension, layer 1 first.

    Found by running one black image, (1, 3, image_size, image_size); the model stays as it is.

    Raises:
        SettingsError: A layer cannot take images of this size, or overwrites its input.
    """
    reference = next(model.parameters(), torch.empty(0))
    activation = reference.new_zeros(1, 3, image_size, image_size)
    shapes = []
    with evaluation(model):
        for name, layer in named_layers(model):
            activation = _checked_forward(layer, activation, name, image_size)
            shapes.append(tuple(activation.shape[1:]))
    return shapes


def _checked_forward(layer: nn.Module, activation: Tensor, name: str, image_size: int) -> Tensor:
    version = activation._version
    try:
        output: Tensor = layer(activation)
    except (RuntimeError, ValueError) as error:
        shape = "x".join(map(str, activation.shape[1:]))
        raise SettingsError(
            f"the model cannot take images of {image_size}x{image_size}: "
            f"layer {name} refuses an input of {shape}; choose another image size"
        ) from error
    if activation._version != version:
        raise SettingsError(
            f"layer {name} overwrites its input, which the client may still be sending: "
            "build it with inplace=False"
        )
    return output


def fingerprint(model: nn.Sequential, image_size: int) -> str:
    """Identify the architecture, whatever the weights, the device and the version of torch.

    Returns:
        SHA-256, in hex, over each layer's output shape and the names, shapes and dtypes of its
        parameters and buffers.

    Raises:
        SettingsError: As for `activation_shapes`.
    """
    layers = [
        {"output": shape, "state": _schema(layer)}
        for shape, layer in zip(activation_shapes(model, image_size), model, strict=True)
    ]
    canonical = json.dumps(layers, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _schema(layer: nn.Module) -> list[tuple[str, list[int], str]]:
    return sorted(
        (name, list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in layer.state_dict().items()
    )
