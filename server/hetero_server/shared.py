"""The weights that the server holds for its clients: the first ones, and what was averaged."""

from __future__ import annotations

from hetero_common.weights import Weights


class SharedWeights(Weights):
    """Every layer, and an exit head for every cut layer."""

    def for_cut(self, cut_layer: int) -> Weights:
        """What a client with this cut layer pulls: layers 1..cut_layer and the exit after it."""
        layers = {k: state for k, state in self.layers.items() if k <= cut_layer}
        return Weights(layers, {cut_layer: self.exits[cut_layer]})

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
