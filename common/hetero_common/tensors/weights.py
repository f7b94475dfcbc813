"""Weights by layer number as one safetensors blob, on the wire and on disk.

Tensor names are `layers.K.NAME` for layer K of the model (counted from 1) and `exits.K.NAME` for
the exit head after layer K.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from hetero_common.errors import NonFinite, RefusedInput, SettingsError
from hetero_common.tensors.aggregation import LayerStates

_TENSOR_NAME = re.compile(r"(?P<kind>layers|exits)\.(?P<number>[0-9]{1,6})\.(?P<name>.+)", re.S)


@dataclass
class Weights:
    """Layers and exit heads, each by the number of its layer."""

    layers: LayerStates = field(default_factory=dict)
    exits: LayerStates = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        states = [*self.layers.values(), *self.exits.values()]
        return sum(tensor.nbytes for state in states for tensor in state.values())

    def joined(self, other: Weights) -> Weights:
        """These and those of another; of what both hold, the other's."""
        return Weights(self.layers | other.layers, self.exits | other.exits)

    def beyond(self, layer: int) -> Weights:
        """Those of layers after this one, and of exits after such."""
        return Weights(
            {k: state for k, state in self.layers.items() if k > layer},
            {k: state for k, state in self.exits.items() if k > layer},
        )

    def flat(self) -> dict[str, Tensor]:
        """All tensors by their names in a file."""
        return {
            f"{kind}.{number}.{name}": tensor.detach()
            for kind, states in (("layers", self.layers), ("exits", self.exits))
            for number, state in states.items()
            for name, tensor in state.items()
        }

    def to_bytes(self, metadata: Mapping[str, str] | None = None) -> bytes:
        """The safetensors file of these weights."""
        return tensors_to_bytes(self.flat(), metadata)

    @classmethod
    def from_bytes(cls, data: bytes) -> Weights:
        """Read a safetensors file.

        Raises:
            RefusedInput: The bytes are no such file, or a tensor has a foreign name.
        """
        return cls.from_flat(tensors_from_bytes(data))

    @classmethod
    def from_flat(cls, flat: Mapping[str, Tensor]) -> Weights:
        """The weights that `flat` gave.

        Raises:
            RefusedInput: A tensor has a foreign name.
        """
        weights = cls()
        for key, tensor in flat.items():
            parts = _TENSOR_NAME.fullmatch(key)
            if parts is None:
                raise RefusedInput("the weights hold a tensor that is no layer's and no exit's")
            states = weights.layers if parts["kind"] == "layers" else weights.exits
            states.setdefault(int(parts["number"]), {})[parts["name"]] = tensor
        return cls(dict(sorted(weights.layers.items())), dict(sorted(weights.exits.items())))

    def require_like(self, reference: Weights) -> None:
        """Check names, shapes, dtypes and finiteness against weights of the agreed schema.

        Raises:
            RefusedInput: They differ, or a value is not finite.
        """
        if _schema(self) != _schema(reference):
            raise RefusedInput("the weights do not have the agreed names, shapes and dtypes")
        for states in (self.layers, self.exits):
            for state in states.values():
                if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
                    raise NonFinite("the weights")


def tensors_to_bytes(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> bytes:
    """The safetensors file of some tensors."""
    whole: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        on_cpu = tensor.detach().to("cpu").contiguous()
        memory = on_cpu.untyped_storage().data_ptr()
        # safetensors refuses two tensors of one memory; averages are held under several names.
        whole[name] = on_cpu.clone() if memory in seen else on_cpu
        seen.add(memory)
    return save(whole, dict(metadata) if metadata else None)


def tensors_from_bytes(data: bytes) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        RefusedInput: The bytes are no such file.
    """
    try:
        return load(data)
    except (SafetensorError, KeyError, RuntimeError, ValueError):  # each says so differently
        raise RefusedInput("the weights are not a valid safetensors file") from None


def layer_states(modules: Mapping[int, nn.Module]) -> LayerStates:
    """A copy of the state dict of each module, by its number, on the CPU."""
    return {
        number: {k: v.detach().to("cpu", copy=True) for k, v in module.state_dict().items()}
        for number, module in modules.items()
    }


def numbered(model: nn.Sequential, first: int = 1) -> dict[int, nn.Module]:
    """The layers of a model or a part of it by their number in the whole model."""
    return dict(enumerate(model, start=first))


def load_states(
    modules: Mapping[int, nn.Module], states: Mapping[int, Mapping[str, Tensor]]
) -> None:
    """Load each module's state, of those that `states` holds."""
    for number, module in modules.items():
        if number in states:
            module.load_state_dict(dict(states[number]))


def read_file(path: Path) -> tuple[Weights, dict[str, str]]:
    """Weights and metadata of a file written by `Weights.to_bytes`.

    Raises:
        SettingsError: The file is missing or is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
        return Weights.from_bytes(path.read_bytes()), metadata
    except (OSError, SafetensorError, RefusedInput):
        raise SettingsError(f"{path} is missing or no weights file of a finished run") from None


def _schema(weights: Weights) -> dict[tuple[str, int, str], tuple[torch.Size, torch.dtype]]:
    return {
        (kind, number, name): (tensor.shape, tensor.dtype)
        for kind, states in (("layers", weights.layers), ("exits", weights.exits))
        for number, state in states.items()
        for name, tensor in state.items()
    }
