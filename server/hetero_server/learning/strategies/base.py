"""What a strategy decides: which server layers a client's batches train, and what is averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.compute.schedules import StepAt
from hetero_common.errors import RefusedInput
from hetero_common.registry import Registry
from hetero_common.tensors.aggregation import LayerStates
from hetero_common.tensors.weights import Weights
from hetero_server.learning.step_outcome import StepOutcome

A = TypeVar("A")
B = TypeVar("B")

FreshLayers = Callable[[int], Mapping[int, nn.Module]]
"""New modules at the initial weights of the run: for layers cut_layer+1..L, or for the exits after
some of these."""


def no_exits(cut_layer: int) -> Mapping[int, nn.Module]:
    """FreshLayers of a server that trains no exits."""
    return {}


@dataclass(frozen=True)
class ClientBatch:
    """One mini-batch of a client.

    Attributes:
        activation: (B, ...), fp32 on the CPU.
        labels: (B,) int64.
        at: The client's step that it is of.
        offsets: (classes,) fp32, added to the logits in the loss; None: nothing is.
    """

    client_id: str
    activation: Tensor
    labels: Tensor
    at: StepAt
    offsets: Tensor | None = None


def one_by_one(do: Callable[[A], B], inputs: Sequence[A]) -> list[B | RefusedInput]:
    """Do something with each; one that is refused does not keep the others from theirs."""
    results: list[B | RefusedInput] = []
    for each in inputs:
        try:
            results.append(do(each))
        except RefusedInput as error:
            results.append(error)
    return results


def all_at_once(
    do: Callable[[list[A]], Sequence[B | RefusedInput]], inputs: Sequence[A | RefusedInput]
) -> list[B | RefusedInput]:
    """Do something with all that were not refused before; refusals stay in their places."""
    sound = [each for each in inputs if not isinstance(each, RefusedInput)]
    results = iter(do(sound) if sound else ())
    return [each if isinstance(each, RefusedInput) else next(results) for each in inputs]


@dataclass(frozen=True)
class Surroundings:
    """What a strategy is built with.

    Attributes:
        plan: The agreement of the run.
        compute: Where the server's layers live.
        fresh: Makes the layers behind a cut layer.
        fresh_exits: Makes the exits after some of these.
        settings: All settings of the strategies; each reads its own options there.
    """

    plan: Plan
    compute: Compute
    fresh: FreshLayers
    fresh_exits: FreshLayers
    settings: Any


class Strategy(Protocol):
    """One way to train the server's layers. Called from one thread only."""

    @property
    def is_joint(self) -> bool:
        """Whether a step takes the batches of several clients at once."""

    @property
    def minds_order(self) -> bool:
        """Whether the result depends on the order in which the clients' batches come."""

    def add(self, client_id: str, cut_layer: int) -> None:
        """A client joins; its batches will enter after `cut_layer`."""

    def remove(self, client_id: str) -> None:
        """A client is gone; an unknown one is ignored."""

    def step(self, batches: Sequence[ClientBatch]) -> list[StepOutcome | RefusedInput]:
        """Train on one mini-batch of a client, or of each of several.

        Returns:
            One entry per batch: what it did, or why it was refused and has changed no weight.
        """

    def forget_statistics(self, client_id: str) -> None:
        """Put BatchNorm's statistics back to before the last step, which was this client's too."""

    def copies(self, round_: int, last: bool) -> Mapping[str, Weights]:
        """Per client, what of the server takes part in the aggregation after `round_`."""

    def adopt(self, averaged: Weights) -> None:
        """Write averages back to every copy that took part."""

    def predict(self, activation: Tensor, cut_layer: int, client_id: str | None) -> Tensor:
        """Class probabilities (B, classes); of the client's own server layers where it has any."""

    def checkpoint(self) -> Mapping[str, Tensor]:
        """Everything it takes to go on, beside who its clients are."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a `checkpoint`; the clients of then have been added."""

    def nbytes(self) -> int:
        """Bytes of all weights and optimizer states that it holds."""

    def layers(self) -> LayerStates:
        """The server layers to keep when the run is over."""


BuildStrategy = Callable[[Surroundings], Strategy]
"""What settings name: a class whose instances are made of `Surroundings`, or a function."""

STRATEGIES: Registry[BuildStrategy] = Registry("strategy")
