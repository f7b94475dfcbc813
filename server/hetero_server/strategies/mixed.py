"""Mixed: one shared server model, and one step on the batches of several clients at once.

The layers behind a cut layer see the images of all clients that are cut there or before as one
batch: one backward pass, one optimizer step, BatchNorm's statistics over all of them. Mixing the
clients' activations is what GPSL (arXiv 2407.15738) and SCALA (arXiv 2405.04875) do for one cut
layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hetero_common.aggregation import LayerStates
from hetero_common.errors import NonFinite, RefusedInput
from hetero_server.strategies.base import ClientBatch, one_by_one
from hetero_server.strategies.sequential import Sequential
from hetero_server.suffix import Entry, StepResult, require_bounded


class Mixed(Sequential):
    """Holds what Sequential does, and takes part in the averages of the clients' layers."""

    def step(self, batches: Sequence[ClientBatch]) -> list[StepResult | RefusedInput]:
        """One step on all of them; if it has no finite outcome, one for each."""
        sound: list[ClientBatch] = []
        results: dict[str, StepResult | RefusedInput] = {}
        for batch in batches:
            try:
                require_bounded(batch.activation)
                sound.append(batch)
            except RefusedInput as error:
                results[batch.client_id] = error
        taken = self._together(sound) if sound else []
        results |= {b.client_id: result for b, result in zip(sound, taken, strict=True)}
        return [results[batch.client_id] for batch in batches]

    def _together(self, batches: Sequence[ClientBatch]) -> Sequence[StepResult | RefusedInput]:
        entries = [
            Entry(b.activation, b.labels, self._cuts[b.client_id], b.offsets) for b in batches
        ]
        furthest = max((b.at for b in batches), key=lambda at: (at.round, at.step / at.steps))
        try:
            return self._suffix.train_together(entries, furthest)
        except NonFinite:
            self._suffix.forget_statistics()
            return one_by_one(self._train, batches)

    def copies(self, round_: int, last: bool) -> Mapping[str, LayerStates]:
        """The shared layers that clients hold too, as a copy of each client that is cut before."""
        if not self._plan.averages_clients or not self._cuts:
            return {}
        deepest = max(self._cuts.values())
        shared = {k: state for k, state in self._suffix.states().items() if k <= deepest}
        return {
            client_id: {k: state for k, state in shared.items() if k > cut_layer}
            for client_id, cut_layer in self._cuts.items()
        }

    def adopt(self, averaged: LayerStates) -> None:
        """The shared model takes the averages too."""
        self._suffix.load(averaged)
