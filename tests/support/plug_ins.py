"""Things of a user's own, one of each kind, as a user would write them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hetero_client.data.source import DATASETS, ArraySource, Split
from hetero_common.compute.augmentation import AUGMENTATIONS
from hetero_common.compute.optimizers import OPTIMIZERS, Recipe
from hetero_common.compute.schedules import SCHEDULES
from hetero_common.errors import RefusedInput
from hetero_common.models.exits import EXIT_HEADS
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies import STRATEGIES, ClientBatch
from hetero_server.learning.strategies.sequential import SequentialStrategy
from hetero_server.run.orders import ORDERS, InTurn

CLASSES = 3


@STRATEGIES.add("twice", "one shared server model, that takes each batch twice")
class TwiceStrategy(SequentialStrategy):
    """Takes each batch two times."""

    def step(self, batches: Sequence[ClientBatch]) -> list[StepOutcome | RefusedInput]:
        """Two steps of the shared model for each batch."""
        super().step(batches)
        return super().step(batches)


@ORDERS.add("backwards", "everybody's next batch, by descending ids")
def backwards(members: Sequence[InTurn], seed: int, round_: int) -> Sequence[InTurn]:
    """Every client's step s, by descending ids, before anybody's step s + 1."""
    left = [member for member in members if member.applied < member.steps]
    first = min((member.applied for member in left), default=0)
    here = [member for member in left if member.applied == first]
    return sorted(here, key=lambda member: member.client_id, reverse=True)


@EXIT_HEADS.add("flat", "one linear layer over everything")
def flat(shape: tuple[int, ...], classes: int) -> nn.Module:
    """All numbers of an activation, and one linear layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes))


class SignSGD(torch.optim.Optimizer):
    """Steps of one length, with a momentum that checkpoints have to keep."""

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move each number by the learning rate."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.mul_(0.5).add_(parameter.grad)
                parameter.add_(momentum.sign(), alpha=-0.01 * group["lr"])


@OPTIMIZERS.add("sign", "steps of one length")
def sign(group: dict[str, Any], rate: float, recipe: Recipe) -> torch.optim.Optimizer:
    """Signs of the momentum."""
    return SignSGD([group], rate)


@SCHEDULES.add("linear", "falls to zero evenly")
def linear(progress: float) -> float:
    """From 1 to 0."""
    return 1 - progress


@AUGMENTATIONS.add("noise", "a little noise")
def noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each pixel by up to three."""
    shift = torch.randint(-3, 4, images.shape, generator=generator)
    return (images.to(torch.int64) + shift).clamp(0, 255).to(torch.uint8)


class Halves:
    """Pixels from -1 to 1."""

    def apply(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32."""
        return images.float() / 127.5 - 1


halves = Halves()


def network(num_classes: int) -> nn.Sequential:
    """Three convolutions."""
    widths = (3, 4, 6, 8)
    layers: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in itertools.pairwise(widths)
    ]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
    return nn.Sequential(*layers, head)


@DATASETS.add("stripes", "images of one color each")
def stripes(path: str, data_dir: Path, split: Split) -> ArraySource:
    """Images whose brightest channel is their class."""
    count = 60 if split == "train" else 30
    generator = np.random.default_rng(len(split))
    labels = np.arange(count) % CLASSES
    pixels = generator.integers(0, 100, (count, 8, 8, 3), dtype=np.uint8)
    pixels[np.arange(count), :, :, labels] += 120
    return ArraySource(("red", "green", "blue"), labels.astype(np.int64), pixels)
