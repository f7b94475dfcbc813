"""The paper's client in plain torch, for trainers to be held against, and what they train on."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hetero_client.data.shard import Shard
from hetero_client.device_model import DeviceModel
from hetero_common.agreement.plan import Plan
from hetero_common.compute.augmentation import augment
from hetero_common.compute.device import Compute
from hetero_common.compute.sampling import batch_indices
from hetero_common.compute.seeding import derive_seed
from hetero_common.models import normalization

PLAN = Plan(
    model="tinycnn",
    width=4,
    image_size=8,
    normalization="digits",
    batch_size=6,
    rounds=3,
    steps_per_round=4,
    client_aggregation="none",
    exit_head="linear",
    seed=7,
)
CUT = 2


def plan_of(**changes: Any) -> Plan:
    return Plan(**(PLAN.model_dump() | changes))


def some_images(count: int, seed: int = 0) -> Shard:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Shard(pixels, torch.randint(0, 10, (count,), generator=generator))


def device_model(plan: Plan, cut_layer: int = CUT) -> DeviceModel:
    torch.manual_seed(plan.seed)
    return DeviceModel(plan, cut_layer, Compute())


class PlainClient:
    """The paper's client, step 1 of the method: prefix, exit head, optimizer, and nothing else."""

    def __init__(
        self, plan: Plan, client_id: str, prefix: nn.Module, head: nn.Module, shard: Shard
    ) -> None:
        self.plan, self.client_id, self.shard = plan, client_id, shard
        # Convolutions add up in another order in another memory format; devices use channels_last.
        self.prefix = copy.deepcopy(prefix).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = copy.deepcopy(head)
        self.parameters = [*self.prefix.parameters(), *self.head.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.parameters if p.dim() > 1]},
            {"params": [p for p in self.parameters if p.dim() <= 1], "weight_decay": 0},
        ]
        self.optimizer: torch.optim.Optimizer
        if plan.optimizer == "adam":
            self.optimizer = torch.optim.Adam(groups, weight_decay=plan.weight_decay)
        else:
            self.optimizer = torch.optim.SGD(
                groups,
                momentum=plan.momentum,
                nesterov=plan.momentum > 0,
                weight_decay=plan.weight_decay,
            )

    def forward(self, round_: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Activation, exit logits and labels of a step."""
        plan, count = self.plan, len(self.shard.labels)
        chosen = torch.from_numpy(
            batch_indices(
                count, plan.batch_size, round_ * self.steps + step, plan.seed, self.client_id
            )
        )
        seed = derive_seed(plan.seed, "augment", self.client_id, round_, step)
        images = augment(self.shard.images[chosen], plan.augment, seed)
        inputs = normalization.parse(plan.normalization).apply(images)
        activation = self.prefix(inputs.contiguous(memory_format=torch.channels_last))
        return activation, self.head(activation), self.shard.labels[chosen]

    def backward(self, loss: Tensor, round_: int, step: int) -> None:
        """One optimizer step on a loss."""
        plan = self.plan
        progress = (round_ + step / self.steps) / plan.rounds
        factor = 0.5 * (1 + math.cos(math.pi * progress)) if plan.lr_schedule == "cosine" else 1
        for group in self.optimizer.param_groups:
            group["lr"] = plan.client_lr * factor
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if plan.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, plan.grad_clip)
        self.optimizer.step()

    def train(self) -> None:
        """All steps of the run."""
        for round_, step in itertools.product(range(self.plan.rounds), range(self.steps)):
            _, logits, labels = self.forward(round_, step)
            self.backward(F.cross_entropy(logits, labels), round_, step)

    @property
    def steps(self) -> int:
        return self.plan.steps_per_round

    def tensors(self) -> dict[str, Tensor]:
        return tensors(self.prefix, self.head)


def tensors(prefix: nn.Module, head: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of both."""
    states = {"prefix": prefix.state_dict(), "head": head.state_dict()}
    return {f"{part}.{k}": v for part, state in states.items() for k, v in state.items()}


def assert_same_bits(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    differ = [k for k in expected if actual[k].numpy().tobytes() != expected[k].numpy().tobytes()]
    assert not differ


def assert_close(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Equal up to the rounding of fp32: the same sums, written down in another way."""
    torch.testing.assert_close(dict(actual), dict(expected))
