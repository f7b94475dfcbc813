"""Mixed: one shared server model, and one step on the batches of several clients at once.

The layers behind a cut layer see the images of all clients that are cut there or before as one
batch: one backward pass, one optimizer step, BatchNorm's statistics over all of them. Mixing the
clients' activations is what GPSL (arXiv 2407.15738) and SCALA (arXiv 2405.04875) do for one cut
layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pydantic import BaseModel

from hetero_common.errors import RefusedInput
from hetero_common.tensors.weights import Weights
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies.base import (
    STRATEGIES,
    ClientBatch,
    Surroundings,
    all_at_once,
    one_by_one,
)
from hetero_server.learning.strategies.sequential import SequentialStrategy
from hetero_server.learning.suffix import Entry

_Entering: TypeAlias = tuple[ClientBatch, Entry]


class MixedOptions(BaseModel, frozen=True, use_attribute_docstrings=True):
    """What the mixed strategy can be told."""

    server_exits: bool = True
    """With mixed: train the exits of --exits on the server's copies of the clients' layers too, so
    that deep exits learn from the images of shallow clients."""


@STRATEGIES.add(
    "mixed",
    "one shared server model, several clients a step",
    options=MixedOptions,
)
class MixedStrategy(SequentialStrategy):
    """Holds what `SequentialStrategy` does, and takes part in the averages of the clients' layers.

    With `server_exits` it also trains the clients' exits, on the images of those that are cut
    before them: an exit then learns from all images, not from those of the deeper clients alone.
    """

    is_joint = True

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        if around.settings.server_exits:
            self._fresh_exits = around.fresh_exits

    def step(self, batches: Sequence[ClientBatch]) -> list[StepOutcome | RefusedInput]:
        """One step on all of them; if it has no finite outcome, one for each."""
        return all_at_once(self._together, one_by_one(self._entering, batches))

    def _entering(self, batch: ClientBatch) -> _Entering:
        cut_layer = self._cuts[batch.client_id]
        return batch, Entry.of(batch.activation, batch.labels, cut_layer, batch.offsets)

    def _together(self, entering: Sequence[_Entering]) -> Sequence[StepOutcome | RefusedInput]:
        batches, entries = zip(*entering, strict=True)
        furthest = max((b.at for b in batches), key=lambda at: (at.round, at.step / at.steps))
        try:
            return self._suffix.train_together(entries, furthest, self._deepest)
        except RefusedInput:
            self._suffix.forget_statistics()
            return one_by_one(self._train, batches)

    @property
    def _deepest(self) -> int:
        """The last layer that a client holds."""
        return max(self._cuts.values(), default=0)

    def copies(self, round_: int, last: bool) -> Mapping[str, Weights]:
        """Give the layers that clients hold too, once for each client that is cut before them."""
        if not self._plan.averages_clients or not self._cuts:
            return {}
        held = self._suffix.weights(last=self._deepest)
        return {client_id: held.beyond(cut_layer) for client_id, cut_layer in self._cuts.items()}

    def adopt(self, averaged: Weights) -> None:
        """The shared model takes the averages too."""
        self._suffix.load(averaged)
