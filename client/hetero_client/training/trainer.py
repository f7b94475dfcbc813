"""One client's training: a forward pass that yields what is sent, and a backward pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hetero_client.data.shard import Shard
from hetero_client.device_model import DeviceModel
from hetero_client.training.protocol import Sent
from hetero_common.agreement.control import RoundDone
from hetero_common.agreement.logit_adjustment import (
    adjusted_cross_entropy,
    logit_offsets,
    prior_counts,
)
from hetero_common.agreement.plan import Plan
from hetero_common.compute.augmentation import augment
from hetero_common.compute.learner import Learner
from hetero_common.compute.sampling import batch_indices
from hetero_common.compute.schedules import StepAt
from hetero_common.compute.seeding import derive_seed, seed_step
from hetero_common.errors import NonFinite
from hetero_common.records.checkpoints import nested, within
from hetero_common.tensors.weight_delta import pack
from hetero_common.tensors.weights import Weights


@dataclass(frozen=True)
class _Pending:
    activation: Tensor
    logits: list[Tensor]
    loss: Tensor


class PrefixTrainer:
    """Trains prefix and exits on a shard with the exits' own loss, the sum over all of them.

    Every random choice is a function of (seed, client id, round, step): the batch, its
    augmentation, dropout. `forward` and `backward` alternate, once per step.

    Args:
        plan: The agreement of the run.
        client_id: The client's stable name; it seeds the random choices.
        model: What is trained.
        shard: What it is trained on.
        steps: Steps per round, as agreed at registration.
    """

    def __init__(
        self, plan: Plan, client_id: str, model: DeviceModel, shard: Shard, steps: int
    ) -> None:
        self._plan = plan
        self._client_id = client_id
        self.model = model
        self._shard = shard
        self._steps = steps
        self.class_counts = prior_counts(plan, shard.labels)
        """Training images of each class, which the server is to know; empty if it is not."""
        offsets = logit_offsets(plan, self.class_counts)
        self._offsets = None if offsets is None else model.compute.place(offsets)
        self._pending: _Pending | None = None
        self._pulled = Weights()
        self.start_anew()

    def forward(self, round_: int, step: int) -> Sent:
        """Run the step's batch through prefix and exit; the activation is what goes out.

        The activation is detached, finite, and of the same pass that `backward` differentiates.

        Raises:
            NonFinite: The exits' loss is not finite. Since the last one takes in all positions of
                all channels, it is finite only if the whole activation is.
        """
        images, labels = self._batch(round_, step)
        targets = self.model.compute.place(labels)
        seed_step(self._plan.seed, "client", self._client_id, round_, step)
        self.model.train(True)
        activation, logits = self.model.forward(images)
        losses = [adjusted_cross_entropy(each.float(), targets, self._offsets) for each in logits]
        loss = _total(losses)
        if not math.isfinite(loss.detach()):
            raise NonFinite("the exit's loss on this batch")
        self._pending = _Pending(activation, logits, loss)
        self._count(losses[-1], logits[-1], targets)
        return Sent(activation.detach(), labels)

    def backward(self, round_: int, step: int, feedback: Tensor | None = None) -> None:
        """One optimizer step on the pass of the last `forward`.

        Args:
            round_: Round of the step.
            step: Step in the round.
            feedback: The server's gradient at the activation (B, ...), or its logits
                (B, classes), as the plan says; None without feedback.
        """
        pending = self._pending
        assert pending is not None, "forward comes before backward"
        self._pending = None
        self._learner.zero_grad()
        objective = self._plan.exit_weight * pending.loss
        if feedback is not None:
            feedback = self.model.compute.place(feedback)
        if feedback is not None and self._plan.feedback == "logits":
            teacher = feedback.softmax(dim=1)
            students = [each.float().log_softmax(dim=1) for each in pending.logits]
            divergences = [F.kl_div(each, teacher, reduction="batchmean") for each in students]
            objective = objective + self._plan.distill_weight * _total(divergences)
        if feedback is not None and self._plan.feedback == "gradient":
            gradient = feedback.to(pending.activation.dtype)
            torch.autograd.backward([objective, pending.activation], [None, gradient])
        else:
            objective.backward()  # type: ignore[no-untyped-call]
        self._learner.step(StepAt(round_, step, self._steps))

    def pull(self, weights: Weights) -> None:
        """Go on with the server's weights."""
        self.model.load(weights)
        self._pulled = weights

    def push(self) -> dict[str, Tensor]:
        """The tensors that the server is to get of the weights."""
        return pack(self.model.weights(), self._pulled, self._plan.push_dtype)

    def checkpoint(self) -> dict[str, Tensor]:
        """Everything it takes to go on from here: weights and optimizer."""
        weights = nested("weights", self.model.weights().flat())
        return weights | nested("optimizer", self._learner.state())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a `checkpoint` of the same cut layer."""
        self.start_anew()
        self.model.load(Weights.from_flat(within("weights", tensors)))
        self._learner.load_state(within("optimizer", tensors))

    def start_anew(self) -> None:
        """Begin with a new optimizer; the weights come from elsewhere."""
        self._learner = Learner(self._plan, self._plan.client_lr, self.model.modules())
        self.begin_round()

    def begin_round(self) -> None:
        """Forget what was counted, and a step that was not finished."""
        self._pending = None
        self._samples, self._correct, self._loss_sum = 0, 0, 0.0

    def round_done(self, round_: int) -> RoundDone:
        """Means over the round's samples."""
        samples = max(1, self._samples)
        return RoundDone(round_, self._loss_sum / samples, self._correct / samples)

    def _batch(self, round_: int, step: int) -> tuple[Tensor, Tensor]:
        plan = self._plan
        chosen = batch_indices(
            len(self._shard.labels),
            plan.batch_size,
            round_ * self._steps + step,
            plan.seed,
            self._client_id,
        )
        indices = torch.from_numpy(chosen)
        seed = derive_seed(plan.seed, "augment", self._client_id, round_, step)
        images = augment(self._shard.images[indices], plan.augment, seed)
        return images, self._shard.labels[indices]

    def _count(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        rows = len(targets)
        self._samples += rows
        self._loss_sum += float(loss.detach()) * rows
        self._correct += int((logits.detach().argmax(dim=1) == targets).sum())


def _total(losses: list[Tensor]) -> Tensor:
    # The mean would weaken the loss behind the cut layer, which trains the most layers.
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()
