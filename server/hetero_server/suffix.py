"""The server's layers: one training step entered at a cut layer, and prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hetero_common.aggregation import LayerStates
from hetero_common.checkpoints import nested, within
from hetero_common.codec import LARGEST_ACTIVATION
from hetero_common.compute import Compute, Learner
from hetero_common.errors import NonFinite, RefusedInput
from hetero_common.logit_adjustment import adjusted_cross_entropy
from hetero_common.plan import Plan, StepAt
from hetero_common.weights import Weights, layer_states, load_states


@dataclass(frozen=True)
class StepResult:
    """Outcome of one server step.

    Attributes:
        loss: Mean cross-entropy over the batch, adjusted where the plan says so.
        correct: Images of the batch that were classified right.
        feedback: (B, ...) gradient of the loss at the activation, or (B, classes) logits, fp32 on
            the CPU; None unless the plan asks for one.
        gradient_norm: Of all layers that took part, before clipping.
        activation_peak: Largest absolute value of the activation.
    """

    loss: float
    correct: int
    feedback: Tensor | None
    gradient_norm: float = 0.0
    activation_peak: float = 0.0


class Suffix:
    """Layers first..L of the model with their optimizer.

    Args:
        layers: Modules by layer number, without gaps up to L.
        plan: The agreement of the run.
        compute: Where they live.
    """

    def __init__(self, layers: Mapping[int, nn.Module], plan: Plan, compute: Compute) -> None:
        self._plan = plan
        self._compute = compute
        self._layers: dict[int, nn.Module] = {}
        self._learner = Learner(plan, plan.server_lr, ())
        self._buffers_before: list[tuple[Tensor, Tensor]] = []
        self.extend(layers)

    @property
    def first(self) -> int:
        """Number of the first layer held."""
        return min(self._layers)

    def extend(self, layers: Mapping[int, nn.Module]) -> None:
        """Hold and train these layers too."""
        # Deepest first: extensions add shallower layers, so the order of the parameters, and with
        # it the rounding of a clipped norm, does not depend on who registered first.
        for number, layer in sorted(layers.items(), reverse=True):
            self._layers[number] = self._compute.adopt(layer)
            self._learner.add(layer)
        self._layers = dict(sorted(self._layers.items()))

    def train_step(
        self,
        activation: Tensor,
        labels: Tensor,
        cut_layer: int,
        at: StepAt,
        offsets: Tensor | None = None,
    ) -> StepResult:
        """One optimizer step on an activation (B, ...) that enters after `cut_layer`.

        Layers up to the cut layer have no part in it and stay as they are. The loss is taken of the
        logits plus `offsets` (classes,), where they are given; what is returned, of the logits.

        Raises:
            RefusedInput: A value is beyond `LARGEST_ACTIVATION`; nothing was changed.
            NonFinite: The loss or its gradient is not finite; no weight was changed.
        """
        largest = _require_bounded(activation)
        wants_gradient = self._plan.feedback == "gradient"
        entering = self._compute.place(activation).detach().requires_grad_(wants_gradient)
        targets = self._compute.place(labels)
        placed = None if offsets is None else self._compute.place(offsets)
        self._learner.zero_grad()
        self._buffers_before = self._copy_buffers(cut_layer)
        with self._compute.autocast():
            logits = self._forward(entering, cut_layer, training=True)
            loss = adjusted_cross_entropy(logits, targets, placed)
        if not math.isfinite(loss.detach()):
            raise NonFinite("the server's loss on this batch")
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self._learner.step(at)
        correct = int((logits.detach().argmax(dim=1) == targets).sum())
        feedback = {"gradient": entering.grad, "logits": logits.detach(), "none": None}
        returned = feedback[self._plan.feedback]
        return StepResult(
            float(loss.detach()),
            correct,
            None if returned is None else returned.float().cpu(),
            norm,
            largest,
        )

    @torch.no_grad()
    def forget_statistics(self) -> None:
        """Put BatchNorm's statistics back to before the last step; its weights stay as they are."""
        for buffer, before in self._buffers_before:
            buffer.copy_(before)

    @torch.no_grad()
    def predict(self, activation: Tensor, cut_layer: int) -> Tensor:
        """Class probabilities (B, classes), fp32 on the CPU, of an activation (B, ...).

        Raises:
            RefusedInput: The cut layer lies before the first layer held, or a value is beyond
                `LARGEST_ACTIVATION`.
        """
        _require_bounded(activation)
        if cut_layer + 1 not in self._layers:
            raise RefusedInput(f"the server has no layer {cut_layer + 1} yet: cut deeper")
        with self._compute.autocast():
            logits = self._forward(self._compute.place(activation), cut_layer, training=False)
        return logits.float().softmax(dim=1).cpu()

    def states(self) -> LayerStates:
        """A copy of all layers' state."""
        return layer_states(self._layers)

    def checkpoint(self) -> dict[str, Tensor]:
        """Everything it takes to go on: the layers and the optimizer's state."""
        layers = nested("weights", Weights(self.states()).flat())
        return layers | nested("optimizer", self._learner.state())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a `checkpoint` of the same layers."""
        self.load(Weights.from_flat(within("weights", tensors)).layers)
        self._learner.load_state(within("optimizer", tensors))

    def load(self, states: LayerStates) -> None:
        """Take over the state of those layers that are held."""
        load_states(self._layers, states)

    def _copy_buffers(self, cut_layer: int) -> list[tuple[Tensor, Tensor]]:
        """The buffers that a step from this cut layer changes, each with a copy."""
        layers = (layer for number, layer in self._layers.items() if number > cut_layer)
        return [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers()]

    def _forward(self, activation: Tensor, cut_layer: int, *, training: bool) -> Tensor:
        for number, layer in self._layers.items():
            if number > cut_layer:
                activation = layer.train(training)(activation)
        return activation


def _require_bounded(activation: Tensor) -> float:
    """The largest absolute value of an activation; RefusedInput if it is too large."""
    low, high = torch.aminmax(activation)
    largest = float(max(-low, high))
    if largest > LARGEST_ACTIVATION:
        raise RefusedInput(
            f"an activation is beyond {LARGEST_ACTIVATION:g}: lower the client's learning rate"
        )
    return largest
