"""The weights that the server holds for its clients: the first ones, and what was averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hetero_common.weights import Weights


@dataclass
class SharedWeights(Weights):
    """Every layer, and an exit head for every cut layer.

    Attributes:
        exit_layers: After which layers a client with a given cut layer has exits.
    """

    exit_layers: Callable[[int], Iterable[int]] = lambda cut_layer: (cut_layer,)

    def for_cut(self, cut_layer: int) -> Weights:
        """What a client with this cut layer pulls: layers 1..cut_layer and its exits."""
        layers = {k: state for k, state in self.layers.items() if k <= cut_layer}
        return Weights(layers, {k: self.exits[k] for k in self.exit_layers(cut_layer)})

    def read_pushed(self, cut_layer: int, data: bytes) -> Weights:
        """The weights that a client with this cut layer has pushed.

        Raises:
            RefusedInput: They do not match the agreed schema, or are not finite.
        """
        weights = Weights.from_bytes(data)
        weights.require_like(self.for_cut(cut_layer))
        return weights

    def take(self, averaged: Weights) -> None:
        """Go on with these averages, of the layers and exits that they hold."""
        self.layers |= averaged.layers
        self.exits |= averaged.exits
