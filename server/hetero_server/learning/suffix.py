"""The server's layers: one training step entered at a cut layer, and prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hetero_common.agreement.logit_adjustment import adjusted_cross_entropy
from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.compute.learner import Learner
from hetero_common.compute.schedules import StepAt
from hetero_common.errors import NonFinite, RefusedInput
from hetero_common.records.checkpoints import nested, within
from hetero_common.tensors import codec
from hetero_common.tensors.aggregation import LayerStates
from hetero_common.tensors.codec import LARGEST_ACTIVATION, Payload
from hetero_common.tensors.weights import Weights, layer_states, load_states
from hetero_server.learning.step_outcome import StepOutcome


@dataclass(frozen=True)
class Entry:
    """A mini-batch that enters after a cut layer; `of` makes one.

    Attributes:
        activation: (B, ...).
        labels: (B,) int64.
        cut_layer: The last layer that it has passed.
        offsets: (classes,), added to its logits in the loss; None: nothing is.
        peak: Largest absolute value of the activation.
    """

    activation: Tensor
    labels: Tensor
    cut_layer: int
    offsets: Tensor | None
    peak: float

    @classmethod
    def of(
        cls, activation: Tensor, labels: Tensor, cut_layer: int, offsets: Tensor | None = None
    ) -> Entry:
        """Look at the activation once, before anything is computed with it.

        Raises:
            RefusedInput: A value is beyond `LARGEST_ACTIVATION`.
        """
        return cls(activation, labels, cut_layer, offsets, _require_bounded(activation))


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
        self._exits: dict[int, nn.Module] = {}
        self._learner = Learner(plan, plan.server_lr, ())
        self._buffers_before: list[tuple[Tensor, Tensor]] = []
        self.extend(layers)

    @property
    def first(self) -> int:
        """Number of the first layer held."""
        return min(self._layers)

    def extend(
        self, layers: Mapping[int, nn.Module], exits: Mapping[int, nn.Module] | None = None
    ) -> None:
        """Hold and train these layers too, and the exits after some of them."""
        # Deepest first: extensions add shallower layers, so the order of the parameters, and with
        # it the rounding of a clipped norm, does not depend on who registered first.
        for number, layer in sorted(layers.items(), reverse=True):
            self._layers[number] = self._compute.adopt(layer)
            self._learner.add(layer)
            if exits and number in exits:
                self._exits[number] = self._compute.adopt(exits[number])
                self._learner.add(exits[number])
        self._layers = dict(sorted(self._layers.items()))

    def train_step(
        self,
        activation: Tensor,
        labels: Tensor,
        cut_layer: int,
        at: StepAt,
        offsets: Tensor | None = None,
    ) -> StepOutcome:
        """One optimizer step on an activation (B, ...) that enters after `cut_layer`.

        Layers up to the cut layer have no part in it and stay as they are. The loss is taken of the
        logits plus `offsets` (classes,), where they are given; what is returned, of the logits.

        Raises:
            RefusedInput: A value is beyond `LARGEST_ACTIVATION`; nothing was changed.
            NonFinite: The loss or its gradient is not finite; no weight was changed.
        """
        return self.train_together([Entry.of(activation, labels, cut_layer, offsets)], at)[0]

    def train_together(
        self, entries: Sequence[Entry], at: StepAt, deepest: int = 0
    ) -> list[StepOutcome]:
        """One optimizer step on the mean loss over the images of all entries.

        Each enters after its own cut layer; the layers behind it, and their BatchNorm, see it as
        one batch with those that have entered before. Added is the mean loss of each exit that is
        held after a layer up to `deepest`, over what has passed that layer here.

        Raises:
            NonFinite: The loss or its gradient is not finite; no weight was changed.
            RefusedInput: What the plan has a client get back does not fit the wire; likewise.
        """
        placed = [self._placed(entry) for entry in entries]
        order = sorted(range(len(entries)), key=lambda index: entries[index].cut_layer)
        by_depth = [placed[index] for index in order]
        rows = [len(entry.labels) for entry in by_depth]
        self._learner.zero_grad()
        self._buffers_before = self._copy_buffers(by_depth[0].cut_layer)
        with self._compute.autocast():
            joint, early = self._forward(
                [(entry.cut_layer, entry.activation) for entry in by_depth], deepest
            )
            labels = _joined([entry.labels for entry in by_depth])
            offsets = self._offsets(by_depth)
            loss = objective = adjusted_cross_entropy(joint, labels, offsets)
            for logits in early:
                own = None if offsets is None else offsets[: len(logits)]
                early_loss = adjusted_cross_entropy(logits, labels[: len(logits)], own)
                objective = objective + self._plan.exit_weight * early_loss
        if not math.isfinite(objective.detach()):
            raise NonFinite("the server's loss on this batch")
        objective.backward()  # type: ignore[no-untyped-call]
        answers = dict(zip(order, torch.split(joint.detach(), rows), strict=True))
        in_order = [answers[index] for index in range(len(entries))]
        # Before the weights change: a feedback that cannot be sent is a step that was not made.
        feedback = [
            self._feedback(entry.activation, own, len(joint))
            for entry, own in zip(placed, in_order, strict=True)
        ]
        norm = self._learner.step(at)
        is_joint = len(entries) > 1
        return [
            StepOutcome(
                float(_own_loss(entry, own) if is_joint else loss.detach()),
                int((own.argmax(dim=1) == entry.labels).sum()),
                returned,
                norm,
                entry.peak,
                is_joint,
            )
            for entry, own, returned in zip(placed, in_order, feedback, strict=True)
        ]

    def _offsets(self, entries: Sequence[Entry]) -> Tensor | None:
        """Return the logit offsets of each row of these entries, (rows, classes), or None."""
        if all(entry.offsets is None for entry in entries):
            return None
        nothing = self._compute.place(torch.zeros(self._plan.classes))
        each = ((nothing if e.offsets is None else e.offsets, len(e.labels)) for e in entries)
        return torch.cat([offsets.expand(rows, -1) for offsets, rows in each])

    def _placed(self, entry: Entry) -> Entry:
        """Move an entry to the layers' device; it gathers a gradient if the plan asks for one."""
        place, wants_gradient = self._compute.place, self._plan.feedback == "gradient"
        return replace(
            entry,
            activation=place(entry.activation).detach().requires_grad_(wants_gradient),
            labels=place(entry.labels),
            offsets=None if entry.offsets is None else place(entry.offsets),
        )

    def _feedback(self, entering: Tensor, logits: Tensor, rows: int) -> Payload | None:
        """Encode what one entry of a step that took in so many rows gets back.

        It is the gradient of the loss at the activation, (B, ...), or the logits, (B, classes).
        """
        match self._plan.feedback:
            case "none":
                return None
            case "logits":
                return codec.encode(logits.float().cpu(), self._plan.wire)
        gradient = entering.grad
        assert gradient is not None, "the plan asked for it"
        # Of the mean over the entry's own images, whoever else was in the step.
        own = (gradient * (rows / len(logits))).float().cpu()
        return codec.encode(own, self._plan.wire)

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
            entering = [(cut_layer, self._compute.place(activation))]
            logits, _ = self._forward(entering, training=False)
        return logits.float().softmax(dim=1).cpu()

    def states(self) -> LayerStates:
        """A copy of the state of all layers."""
        return layer_states(self._layers)

    def weights(self, last: int | None = None) -> Weights:
        """A copy of the layers and exits held: of all, or of those up to layer `last`."""
        layers, exits = (
            {k: module for k, module in held.items() if last is None or k <= last}
            for held in (self._layers, self._exits)
        )
        return Weights(layer_states(layers), layer_states(exits))

    def checkpoint(self) -> dict[str, Tensor]:
        """Everything it takes to go on: layers, exits and the optimizer's state."""
        layers = nested("weights", self.weights().flat())
        return layers | nested("optimizer", self._learner.state())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a `checkpoint` of the same layers."""
        self.load(Weights.from_flat(within("weights", tensors)))
        self._learner.load_state(within("optimizer", tensors))

    def nbytes(self) -> int:
        """Bytes of the layers, the exits and the optimizer's state."""
        held = (*self._layers.values(), *self._exits.values())
        tensors = (t for module in held for t in (*module.parameters(), *module.buffers()))
        return sum(tensor.nbytes for tensor in tensors) + self._learner.nbytes()

    def load(self, weights: Weights) -> None:
        """Take over the state of those layers and exits that are held."""
        load_states(self._layers, weights.layers)
        load_states(self._exits, weights.exits)

    def _copy_buffers(self, cut_layer: int) -> list[tuple[Tensor, Tensor]]:
        """The buffers that a step from this cut layer changes, each with a copy."""
        held = (*self._layers.items(), *self._exits.items())
        modules = (module for number, module in held if number > cut_layer)
        return [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]

    def _forward(
        self, entering: Sequence[tuple[int, Tensor]], deepest: int = 0, *, training: bool = True
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits of all that enters, in its order: by ascending cut layers.

        With those of each exit up to `deepest`, which are of the first rows only.
        """
        current: list[Tensor] = []
        early: list[Tensor] = []
        for number, layer in self._layers.items():
            current += [activation for cut_layer, activation in entering if cut_layer == number - 1]
            if current:
                current = [layer.train(training)(_joined(current))]
                if number <= deepest and number in self._exits:
                    early.append(self._exits[number].train(training)(current[0]))
        return current[0], early


def _own_loss(entry: Entry, logits: Tensor) -> Tensor:
    return adjusted_cross_entropy(logits.float(), entry.labels, entry.offsets)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _require_bounded(activation: Tensor) -> float:
    """The largest absolute value of an activation; RefusedInput if it is too large."""
    low, high = torch.aminmax(activation)
    largest = float(max(-low, high))
    if largest > LARGEST_ACTIVATION:
        raise RefusedInput(
            f"an activation is beyond {LARGEST_ACTIVATION:g}: lower the client's learning rate"
        )
    return largest
