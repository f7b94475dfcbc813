"""Averaging: a server replica per client, and cross-layer aggregation every few rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from pydantic import BaseModel, Field
from torch import Tensor

from hetero_common.errors import NotTraining, RefusedInput
from hetero_common.records.checkpoints import nested, within
from hetero_common.tensors.aggregation import LayerStates
from hetero_common.tensors.weights import Weights, layer_states
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies.base import (
    STRATEGIES,
    ClientBatch,
    Surroundings,
    one_by_one,
)
from hetero_server.learning.suffix import Suffix


class AveragingOptions(BaseModel, frozen=True, use_attribute_docstrings=True):
    """What the averaging strategy can be told."""

    aggregate_every: int = Field(1, ge=1)
    """Rounds between cross-layer aggregations of the replicas (averaging)."""


@STRATEGIES.add("averaging", "a server model per client, averaged", options=AveragingOptions)
class AveragingStrategy:
    """One replica of layers cut_layer+1..L per client, each with its own optimizer.

    Aggregation averages weights, not optimizer state: each replica keeps its own momentum. The last
    round always has one, so that a finished run has one model. A replica sees its own client only,
    in order; whose batch is next makes no difference to it.
    """

    is_joint = False
    minds_order = False

    def __init__(self, around: Surroundings) -> None:
        self._plan = around.plan
        self._compute = around.compute
        self._fresh = around.fresh
        self._aggregate_every: int = around.settings.aggregate_every
        self._replicas: dict[str, Suffix] = {}
        self._reference: LayerStates = {}

    def add(self, client_id: str, cut_layer: int) -> None:
        """A new replica starts from the last aggregated layers, or the initial ones."""
        fresh = self._fresh(cut_layer)
        self._reference = layer_states(fresh) | self._reference
        replica = Suffix(fresh, self._plan, self._compute)
        replica.load(Weights(self._reference))
        self._replicas[client_id] = replica

    def remove(self, client_id: str) -> None:
        """Free the client's replica."""
        self._replicas.pop(client_id, None)

    def step(self, batches: Sequence[ClientBatch]) -> list[StepOutcome | RefusedInput]:
        """One step of each client's own replica."""
        return one_by_one(self._train, batches)

    def _train(self, batch: ClientBatch) -> StepOutcome:
        replica = self._replicas[batch.client_id]
        return replica.train_step(
            batch.activation, batch.labels, replica.first - 1, batch.at, batch.offsets
        )

    def forget_statistics(self, client_id: str) -> None:
        """Put the BatchNorm statistics of the client's own replica back to before its last step."""
        self._replicas[client_id].forget_statistics()

    def copies(self, round_: int, last: bool) -> Mapping[str, Weights]:
        """All replicas, in the rounds that aggregate."""
        if not last and (round_ + 1) % self._aggregate_every:
            return {}
        return {client: Weights(replica.states()) for client, replica in self._replicas.items()}

    def adopt(self, averaged: Weights) -> None:
        """Write the averages to every replica, and keep them for replicas to come."""
        self._reference |= {k: s for k, s in averaged.layers.items() if k in self._reference}
        for replica in self._replicas.values():
            replica.load(averaged)

    def predict(self, activation: Tensor, cut_layer: int, client_id: str | None) -> Tensor:
        """Probabilities of the client's replica; without a client, of the deepest-reaching one."""
        if not self._replicas:
            raise NotTraining("no client takes part, so there is nothing to predict with")
        replica = self._replicas.get(client_id or "") or min(
            self._replicas.values(), key=lambda replica: replica.first
        )
        return replica.predict(activation, cut_layer)

    def checkpoint(self) -> Mapping[str, Tensor]:
        """All replicas with their optimizers, and the layers as last aggregated."""
        tensors = nested("reference", Weights(self._reference).flat())
        for client_id, replica in self._replicas.items():
            tensors |= nested(_replica(client_id), replica.checkpoint())
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the replicas of the clients that have been added; others are left out."""
        self._reference = Weights.from_flat(within("reference", tensors)).layers
        for client_id, replica in self._replicas.items():
            replica.restore(within(_replica(client_id), tensors))

    def nbytes(self) -> int:
        """Count the bytes of all replicas, and of the layers as last aggregated."""
        replicas = sum(replica.nbytes() for replica in self._replicas.values())
        return replicas + Weights(self._reference).nbytes

    def layers(self) -> LayerStates:
        """The layers as last aggregated."""
        return self._reference


def _replica(client_id: str) -> str:
    """Return the prefix of a client's replica in a checkpoint; no other client's begins like it."""
    return f"replica {quote(client_id, safe='')}"
