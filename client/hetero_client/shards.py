"""The images a client trains and evaluates on, decoded once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from hetero_client.data import ImageSource, Split, open_source
from hetero_client.settings import DataSettings
from hetero_client.trainer import Shard
from hetero_common.dealing import deal
from hetero_common.errors import SettingsError
from hetero_common.partition import Indices
from hetero_common.plan import Plan
from hetero_common.sampling import derive_seed, permutation

log = logging.getLogger(__name__)


def load_shard(
    settings: DataSettings, plan: Plan, index: int, count: int, cuts: Sequence[int] = ()
) -> Shard:
    """Shard `index` (from 0) of `count` of the training images.

    Args:
        settings: Which images, and how they are dealt out.
        plan: Gives the seed, the same for all clients.
        index: Whose shard.
        count: Number of clients.
        cuts: Cut layer of each client; needed where they decide who gets what.

    Raises:
        SettingsError: The data set is missing, unreadable, or has another number of classes, or it
            can not be dealt out like this.
    """
    source = _open(settings.dataset, settings.data_dir, plan, "train")
    own = deal(source.labels, count, settings.dealing(), plan.seed, cuts)[index]
    if len(own) < plan.batch_size <= len(source.labels) // count:
        log.warning(
            "shard %d/%d has %d images, less than a batch: with --min-shard %d, on all clients "
            "alike, it would be filled up from the largest",
            *(index + 1, count, len(own), plan.batch_size),
        )
    return _decode(source, own, plan)


def load_test(dataset: str, data_dir: Path, plan: Plan) -> Shard:
    """The whole test split, in a seeded order so that its first images are a fair sample."""
    source = _open(dataset, data_dir, plan, "test")
    order = permutation(len(source.labels), derive_seed("test order", plan.seed))
    return _decode(source, order, plan)


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
