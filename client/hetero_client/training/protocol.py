"""What a client asks of whatever trains its part of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from hetero_client.device_model import DeviceModel
from hetero_common.agreement.control import RoundDone
from hetero_common.tensors.weights import Weights


@dataclass(frozen=True)
class Sent:
    """What the server gets of one step: activation (B, ...), labels (B,) int64."""

    activation: Tensor
    labels: Tensor


class Trainer(Protocol):
    """Trains a prefix and its exits, a step at a time; `PrefixTrainer` does it on a shard.

    `forward` and `backward` alternate, once per step.

    Attributes:
        model: Prefix and exits.
        class_counts: Training images of each class, which the server is to know; empty if not.
    """

    model: DeviceModel
    class_counts: tuple[int, ...]

    def forward(self, round_: int, step: int) -> Sent:
        """Run a step's batch through prefix and exits; what the server gets of it is finite.

        Raises:
            NonFinite: The exits' loss is not finite.
        """

    def backward(self, round_: int, step: int, feedback: Tensor | None = None) -> None:
        """One optimizer step on the pass of the last `forward`.

        Args:
            round_: Round of the step.
            step: Step in the round.
            feedback: The server's gradient at the activation (B, ...), or its logits
                (B, classes), as the plan says; None without feedback.
        """

    def pull(self, weights: Weights) -> None:
        """Go on with the server's weights."""

    def push(self) -> dict[str, Tensor]:
        """The tensors that the server is to get of the weights."""

    def checkpoint(self) -> dict[str, Tensor]:
        """Everything it takes to go on from here: weights and optimizer."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a `checkpoint` of the same cut layer."""

    def start_anew(self) -> None:
        """Begin with a new optimizer; the weights come from elsewhere."""

    def begin_round(self) -> None:
        """Forget what was counted, and a step that was not finished."""

    def round_done(self, round_: int) -> RoundDone:
        """Means over the round's samples."""
