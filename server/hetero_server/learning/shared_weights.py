"""The weights that the server holds for its clients: the first ones, and what was averaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from hetero_common.agreement.plan import Plan
from hetero_common.errors import RefusedInput
from hetero_common.tensors.aggregation import BATCHES_TRACKED, RUNNING_MEAN, RUNNING_VARIANCE
from hetero_common.tensors.codec import LARGEST_ACTIVATION
from hetero_common.tensors.weight_delta import pack, unpack
from hetero_common.tensors.weights import Weights, tensors_from_bytes, tensors_to_bytes

_MOST_TIMES = 100.0
_USUAL_RMS = 0.1
_MOST_BATCHES = 2**31


@dataclass
class SharedWeights(Weights):
    """Every layer, and an exit head for every cut layer.

    Attributes:
        exit_layers: After which layers a client with a given cut layer has exits.
        push_dtype: How clients push theirs.
    """

    exit_layers: Callable[[int], Iterable[int]] = lambda cut_layer: (cut_layer,)
    push_dtype: str = "fp32"
    _file_bytes: dict[tuple[int, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, weights: Weights, plan: Plan) -> SharedWeights:
        """The first ones of a run."""
        layers, exits = dict(weights.layers), dict(weights.exits)
        return cls(layers, exits, plan.exit_layers, plan.push_dtype)

    def for_cut(self, cut_layer: int) -> Weights:
        """Return what a client with this cut layer pulls: layers 1..cut_layer and its exits."""
        layers = {k: state for k, state in self.layers.items() if k <= cut_layer}
        return Weights(layers, {k: self.exits[k] for k in self.exit_layers(cut_layer)})

    def pulled_bytes(self, cut_layer: int) -> int:
        """Size of the file that a client with this cut layer pulls."""
        return self._size(cut_layer, "fp32")

    def pushed_bytes(self, cut_layer: int) -> int:
        """Size of the file that a client with this cut layer pushes."""
        return self._size(cut_layer, self.push_dtype)

    def _size(self, cut_layer: int, dtype: str) -> int:
        """It depends on names and shapes alone, so it is the same in every round."""
        if (cut_layer, dtype) not in self._file_bytes:
            weights = self.for_cut(cut_layer)
            data = tensors_to_bytes(pack(weights, weights, dtype))
            self._file_bytes[cut_layer, dtype] = len(data)
        return self._file_bytes[cut_layer, dtype]

    def read_pushed(self, cut_layer: int, data: bytes) -> Weights:
        """The weights that a client with this cut layer has pushed.

        Raises:
            RefusedInput: They do not match the agreed schema, are not finite, or are no result of
                training.
        """
        before = self.for_cut(cut_layer)
        weights = unpack(tensors_from_bytes(data), before, self.push_dtype)
        weights.require_like(before)
        _require_sane(weights, before)
        return weights

    def unpack(self, cut_layer: int, packed: Mapping[str, Tensor]) -> Weights:
        """The weights that a client with this cut layer has packed."""
        return unpack(packed, self.for_cut(cut_layer), self.push_dtype)

    def take(self, averaged: Weights) -> None:
        """Go on with these averages, of the layers and exits that they hold."""
        self.layers = self.layers | averaged.layers
        self.exits = self.exits | averaged.exits

    def snapshot(self) -> SharedWeights:
        """These weights, whatever is taken after them."""
        return replace(self)


def paired(pushed: Weights, before: Weights) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each tensor that was pushed, with the one that its client has begun with, by their names.

    In the order of the names: a file may be read in any.
    """
    flat = before.flat()
    for name, tensor in sorted(pushed.flat().items()):
        yield name, tensor, flat[name]


def linear(name: str, tensor: Tensor) -> Tensor:
    """Variances as deviations, in the unit of all other values."""
    return tensor.sqrt() if name.endswith(RUNNING_VARIANCE) else tensor


def norm(tensor: Tensor) -> float:
    """The norm of a tensor, the same to the last bit in every memory layout."""
    return float(tensor.contiguous().norm())


def _require_sane(pushed: Weights, before: Weights) -> None:
    """Refuse values that no training gives, whatever the others push.

    - A weight's RMS is at most 100 times that of the shared one, or of 0.1 where that is smaller
      (biases begin at 0).
    - BatchNorm's means and deviations are at most `LARGEST_ACTIVATION`, its variances not negative.
    - BatchNorm's counters are not negative, and have gone on by at most 2^31.

    Args:
        pushed: Of the schema of `before`, finite.
        before: What the client has begun with.

    Raises:
        RefusedInput: A tensor is none of these.
    """
    for name, tensor, old in paired(pushed, before):
        if name.endswith(BATCHES_TRACKED):
            if bool((tensor < 0).any()) or bool((tensor - old > _MOST_BATCHES).any()):
                raise RefusedInput(f"{name} is negative, or has gone on by more than 2^31")
        elif name.endswith((RUNNING_MEAN, RUNNING_VARIANCE)):
            if name.endswith(RUNNING_VARIANCE) and bool((tensor < 0).any()):
                raise RefusedInput(f"{name} is negative, which no variance is")
            _require_rms(name, linear(name, tensor), LARGEST_ACTIVATION)
        elif tensor.is_floating_point():
            _require_rms(name, tensor, _MOST_TIMES * max(_rms(old), _USUAL_RMS))


def _rms(tensor: Tensor) -> float:
    return norm(tensor) / math.sqrt(max(1, tensor.numel()))


def _require_rms(name: str, tensor: Tensor, most: float) -> None:
    rms = _rms(tensor)
    if rms > most:
        raise RefusedInput(
            f"the RMS of {name} is {rms:.3g}, and at most {most:.3g} is taken: lower the client's "
            "learning rate"
        )
