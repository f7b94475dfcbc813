"""The yardstick: the undivided model on all the data, with the same recipe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hetero_client.trainer import Shard
from hetero_common import normalization
from hetero_common.compute import Compute, Learner, seed_step, seeded
from hetero_common.models import build_model
from hetero_common.plan import Plan, StepAt
from hetero_common.sampling import augment, batch_indices, derive_seed
from hetero_server.roster import Observer

_NAME = "centralized"


class Centralized:
    """Trains the whole model on `batch_size` images a step.

    Args:
        plan: Recipe; its server learning rate and seed.
        train: All training images.
        test: The test split, in the clients' order.
        compute: Where it runs.
    """

    def __init__(self, plan: Plan, train: Shard, test: Shard, compute: Compute) -> None:
        self._plan = plan
        self._train = train
        self._test = test
        self._compute = compute
        self._normalize = normalization.parse(plan.normalization).apply
        with seeded(plan.seed, "model"):
            self.model = build_model(
                plan.model, num_classes=plan.classes, width=plan.width, stem=plan.stem
            )
        compute.adopt(self.model)
        self._learner = Learner(plan, plan.server_lr, [self.model])

    def run(self, steps: Sequence[int], eval_samples: int, observe: Observer) -> None:
        """Train `steps[r]` mini-batches in round r, and evaluate when the plan says so."""
        done = 0
        for round_, count in enumerate(steps):
            losses = [self.step(done + s, StepAt(round_, s, count)) for s in range(count)]
            done += count
            samples = done * self._plan.batch_size
            observe("round", round=round_, loss=sum(losses) / len(losses), samples=samples)
            if self._plan.evaluates_after(round_):
                last = self._plan.is_last(round_)
                test = self._test if last else self._test.first(eval_samples)
                accuracy = self.accuracy(test)
                observe("evaluation", round=round_, samples=len(test.labels), accuracy=accuracy)

    def step(self, global_step: int, at: StepAt) -> float:
        """One optimizer step; returns the loss."""
        plan = self._plan
        chosen = batch_indices(
            len(self._train.labels), plan.batch_size, global_step, plan.seed, _NAME
        )
        indices = torch.from_numpy(chosen)
        seed = derive_seed(plan.seed, "augment", _NAME, at.round, at.step)
        images = augment(self._train.images[indices], plan.augment, seed)
        seed_step(plan.seed, _NAME, at.round, at.step)
        self.model.train()
        self._learner.zero_grad()
        logits = self._logits(images)
        loss = F.cross_entropy(logits, self._compute.place(self._train.labels[indices]))
        loss.backward()  # type: ignore[no-untyped-call]
        self._learner.step(at)
        return float(loss.detach())

    @torch.no_grad()
    def accuracy(self, test: Shard, rows: int = 256) -> float:
        """Share of the images that are classified right."""
        self.model.train(False)
        predicted = [
            self._logits(part).argmax(dim=1).cpu() for part in torch.split(test.images, rows)
        ]
        return float((torch.cat(predicted) == test.labels).double().mean())

    def _logits(self, images: Tensor) -> Tensor:
        with self._compute.autocast():
            logits: Tensor = self.model(self._compute.place(self._normalize(images)))
        return logits.float()
