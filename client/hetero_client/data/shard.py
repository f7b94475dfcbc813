"""The images a client trains, chooses its threshold and evaluates on, decoded once."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hetero_client.data.dealing import deal
from hetero_client.data.opening import open_source
from hetero_client.data.partition import MIN_SHARD_SIZE, Indices
from hetero_client.data.settings import DataSettings
from hetero_client.data.source import ImageSource, Split
from hetero_common.agreement.plan import Plan
from hetero_common.compute.seeding import derive_seed, permutation
from hetero_common.errors import SettingsError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """Images a client holds: images (N, 3, S, S) uint8, labels (N,) int64, names of the classes."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...] = ()

    def first(self, count: int) -> Shard:
        """Its first images."""
        return Shard(self.images[:count], self.labels[:count], self.classes)


def load_shard(
    settings: DataSettings, plan: Plan, index: int, count: int, cuts: Sequence[int] = ()
) -> Shard:
    """Load what is trained on of shard `index` (from 0) of `count` of the training images.

    Args:
        settings: Which images, and how they are dealt out.
        plan: Gives the seed, the same for all clients.
        index: Whose shard.
        count: Number of clients.
        cuts: Cut layer of each client; needed where they decide who gets what.

    Raises:
        SettingsError: The data set is missing, unreadable, too small, or has another number of
            classes, or it cannot be dealt out like this.
    """
    return _Dealt(settings, plan, count, cuts).trained_on(index)


def load_shards(settings: DataSettings, plan: Plan, cuts: Sequence[int]) -> list[Shard]:
    """Those of all clients, who have these cut layers; raises what `load_shard` does."""
    dealt = _Dealt(settings, plan, len(cuts), cuts)
    return [dealt.trained_on(index) for index in range(len(cuts))]


def load_validation(
    settings: DataSettings, plan: Plan, index: int, count: int, cuts: Sequence[int] = ()
) -> Shard:
    """Load what is held out of that shard; takes and raises what `load_shard` does."""
    return _Dealt(settings, plan, count, cuts).held_out(index)


def load_test(dataset: str, data_dir: Path, plan: Plan) -> Shard:
    """The whole test split, in a seeded order so that its first images are a fair sample."""
    source = _open(dataset, data_dir, plan, "test")
    order = permutation(len(source.labels), derive_seed("test order", plan.seed))
    return _decode(source, order, plan)


def hold_out(shard: Indices, share: float, seed: int) -> tuple[Indices, Indices]:
    """Divide a shard into what is trained on and what is not, both in the order of the shard.

    With a share above 0 at least one image is held out.

    Raises:
        SettingsError: Too little is left to train on.
    """
    if share == 0:
        return shard, shard[:0]
    count = max(1, round(share * len(shard)))
    left = len(shard) - count
    if left < MIN_SHARD_SIZE:
        raise SettingsError(
            f"--validation {share:g} leaves {left} of {len(shard)} images to train on, of at least "
            f"{MIN_SHARD_SIZE} that it takes: hold out fewer"
        )
    held_out = np.zeros(len(shard), dtype=bool)
    held_out[permutation(len(shard), derive_seed("validation", seed))[:count]] = True
    return shard[~held_out], shard[held_out]


class _Dealt:
    """The training images, dealt out to all clients."""

    def __init__(self, settings: DataSettings, plan: Plan, count: int, cuts: Sequence[int]) -> None:
        self._settings, self._plan = settings, plan
        self._source = _open(settings.dataset, settings.data_dir, plan, "train")
        self._shards = deal(self._source.labels, count, settings.dealing(), plan.seed, cuts)

    def trained_on(self, index: int) -> Shard:
        train, _ = self._divided(index)
        count, batch_size = len(self._shards), self._plan.batch_size
        least = math.ceil(batch_size / (1 - self._settings.validation))
        if len(train) < batch_size and least <= len(self._source.labels) // count:
            log.warning(
                "shard %d/%d has %d images to train on, less than a batch: with --min-shard %d, on "
                "all clients alike, it would be filled up from the largest",
                *(index + 1, count, len(train), least),
            )
        return _decode(self._source, train, self._plan)

    def held_out(self, index: int) -> Shard:
        _, validation = self._divided(index)
        return _decode(self._source, validation, self._plan)

    def _divided(self, index: int) -> tuple[Indices, Indices]:
        return hold_out(self._shards[index], self._settings.validation, self._plan.seed)


def _open(dataset: str, data_dir: Path, plan: Plan, split: Split) -> ImageSource:
    source = open_source(dataset, data_dir, split)
    if len(source.classes) != plan.classes:
        raise SettingsError(
            f"data set {dataset} has {len(source.classes)} classes, but the model has "
            f"{plan.classes}: start the server with --classes {len(source.classes)}"
        )
    return source


def _decode(source: ImageSource, indices: Indices, plan: Plan) -> Shard:
    images = source.read(indices, plan.image_size)
    return Shard(images, torch.from_numpy(source.labels[indices]), source.classes)
