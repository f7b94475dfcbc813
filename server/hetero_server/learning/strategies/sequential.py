"""Sequential: one shared server model, trained by the clients' batches one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from hetero_common.errors import RefusedInput
from hetero_common.records.checkpoints import within
from hetero_common.tensors.aggregation import LayerStates
from hetero_common.tensors.weights import Weights
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies.base import (
    STRATEGIES,
    ClientBatch,
    FreshLayers,
    Surroundings,
    no_exits,
    one_by_one,
)
from hetero_server.learning.suffix import Suffix


@STRATEGIES.add("sequential", "one shared server model")
class SequentialStrategy:
    """Holds layers min(cut layer)+1..L once; the least memory a server can do with."""

    is_joint = False
    minds_order = True

    def __init__(self, around: Surroundings) -> None:
        self._plan = around.plan
        self._fresh = around.fresh
        self._fresh_exits: FreshLayers = no_exits  # the clients' exits are theirs alone
        self._suffix = Suffix({}, around.plan, around.compute)
        self._cuts: dict[str, int] = {}

    def add(self, client_id: str, cut_layer: int) -> None:
        """Extend the shared model downwards where the new client's cut is the shallowest."""
        self._cuts[client_id] = cut_layer
        self._extend(cut_layer)

    def _extend(self, cut_layer: int) -> None:
        held = self._suffix.states()
        missing = {k: layer for k, layer in self._fresh(cut_layer).items() if k not in held}
        exits = {k: e for k, e in self._fresh_exits(cut_layer).items() if k in missing}
        self._suffix.extend(missing, exits)

    def remove(self, client_id: str) -> None:
        """Nothing is held for a single client."""
        self._cuts.pop(client_id, None)

    def step(self, batches: Sequence[ClientBatch]) -> list[StepOutcome | RefusedInput]:
        """Take one step of the shared model for each batch, entered at its client's cut layer."""
        return one_by_one(self._train, batches)

    def _train(self, batch: ClientBatch) -> StepOutcome:
        cut_layer = self._cuts[batch.client_id]
        return self._suffix.train_step(
            batch.activation, batch.labels, cut_layer, batch.at, batch.offsets
        )

    def forget_statistics(self, client_id: str) -> None:
        """Put the BatchNorm statistics of the shared model back to before its last step."""
        self._suffix.forget_statistics()

    def copies(self, round_: int, last: bool) -> Mapping[str, Weights]:
        """The shared model is already common to all clients: nothing to average."""
        return {}

    def adopt(self, averaged: Weights) -> None:
        """The averages of client prefixes are the clients' own."""

    def predict(self, activation: Tensor, cut_layer: int, client_id: str | None) -> Tensor:
        """Probabilities of the shared model."""
        return self._suffix.predict(activation, cut_layer)

    def checkpoint(self) -> Mapping[str, Tensor]:
        """The shared model with its optimizer."""
        return self._suffix.checkpoint()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """It may reach further down than the clients of now need."""
        held = Weights.from_flat(within("weights", tensors)).layers
        self._extend(min(held) - 1)
        self._suffix.restore(tensors)

    def nbytes(self) -> int:
        """Count the bytes of the shared model with its optimizer."""
        return self._suffix.nbytes()

    def layers(self) -> LayerStates:
        """The shared model."""
        return self._suffix.states()
