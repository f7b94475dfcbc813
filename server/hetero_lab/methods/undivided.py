"""One undivided model and the images that it is trained on; what the baselines are made of."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hetero_client.data.shard import Shard
from hetero_common.agreement.logit_adjustment import (
    adjusted_cross_entropy,
    logit_offsets,
    prior_counts,
)
from hetero_common.agreement.plan import Plan
from hetero_common.compute.augmentation import augment
from hetero_common.compute.device import Compute
from hetero_common.compute.learner import Learner
from hetero_common.compute.sampling import batch_indices
from hetero_common.compute.schedules import StepAt
from hetero_common.compute.seeding import derive_seed, seed_step, seeded
from hetero_common.models import build_model, normalization
from hetero_common.records.checkpoints import nested, within
from hetero_common.tensors.aggregation import LayerStates
from hetero_common.tensors.weights import Weights, layer_states, load_states, numbered


class Undivided:
    """Trains all layers on `batch_size` images a step.

    Args:
        plan: Recipe; its server learning rate and seed.
        name: Whoever trains; it seeds the random choices.
        layers: What is trained, images in and logits out.
        train: Its training images.
        compute: Where it runs.
    """

    def __init__(
        self, plan: Plan, name: str, layers: nn.Sequential, train: Shard, compute: Compute
    ) -> None:
        self._plan = plan
        self.name = name
        self.train = train
        self._compute = compute
        offsets = logit_offsets(plan, prior_counts(plan, train.labels))
        self._offsets = None if offsets is None else compute.place(offsets)
        self._normalize = normalization.parse(plan.normalization).apply
        self.model = layers
        compute.adopt(self.model)
        self._learner = Learner(plan, plan.server_lr, [self.model])

    def step(self, global_step: int, at: StepAt) -> float:
        """One optimizer step; returns the loss."""
        plan, train = self._plan, self.train
        chosen = batch_indices(
            len(train.labels), plan.batch_size, global_step, plan.seed, self.name
        )
        indices = torch.from_numpy(chosen)
        seed = derive_seed(plan.seed, "augment", self.name, at.round, at.step)
        images = augment(train.images[indices], plan.augment, seed)
        seed_step(plan.seed, self.name, at.round, at.step)
        self.model.train()
        self._learner.zero_grad()
        targets = self._compute.place(train.labels[indices])
        loss = adjusted_cross_entropy(self._logits(images), targets, self._offsets)
        loss.backward()  # type: ignore[no-untyped-call]
        self._learner.step(at)
        return float(loss.detach())

    @torch.no_grad()
    def right(self, test: Shard, rows: int = 256) -> Tensor:
        """Return which images are classified right, (N,) bool."""
        self.model.train(False)
        predicted = [
            self._logits(part).argmax(dim=1).cpu() for part in torch.split(test.images, rows)
        ]
        return torch.cat(predicted) == test.labels

    def states(self) -> LayerStates:
        """A copy of all layers' state."""
        return layer_states(numbered(self.model))

    def load(self, states: LayerStates) -> None:
        """Take over the state of all layers."""
        load_states(numbered(self.model), states)

    def checkpoint(self) -> dict[str, Tensor]:
        """Everything it takes to go on from here: weights and optimizer."""
        weights = nested("weights", Weights(self.states()).flat())
        return weights | nested("optimizer", self._learner.state())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a `checkpoint` of the same layers."""
        self.load(Weights.from_flat(within("weights", tensors)).layers)
        self._learner.load_state(within("optimizer", tensors))

    def _logits(self, images: Tensor) -> Tensor:
        with self._compute.autocast():
            logits: Tensor = self.model(self._compute.place(self._normalize(images)))
        return logits.float()


def whole_model(plan: Plan) -> nn.Sequential:
    """All layers at the initial weights of a run with this plan."""
    with seeded(plan.seed, "model"):
        return build_model(plan.model, num_classes=plan.classes, width=plan.width, stem=plan.stem)
