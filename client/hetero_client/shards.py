"""The images a client trains and evaluates on, decoded once."""

from __future__ import annotations

from pathlib import Path

import torch

from hetero_client.data import ImageSource, Split, open_source
from hetero_client.settings import DataSettings
from hetero_client.trainer import Shard
from hetero_common import partition
from hetero_common.errors import SettingsError
from hetero_common.plan import Plan
from hetero_common.sampling import derive_seed, permutation


def load_shard(settings: DataSettings, plan: Plan, index: int, count: int) -> Shard:
    """Shard `index` (from 0) of `count` of the training images.

    Raises:
        SettingsError: The data set is missing, unreadable, or has another number of classes.
    """
    source = _open(settings.dataset, settings.data_dir, plan, "train")
    if settings.partition == "iid":
        shards = partition.iid(source.labels, count, plan.seed)
    else:
        shards = partition.dirichlet(source.labels, count, settings.alpha, plan.seed)
    return _decode(source, shards[index], plan)


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


def _decode(source: ImageSource, indices: partition.Indices, plan: Plan) -> Shard:
    images = source.read(indices, plan.image_size)
    return Shard(images, torch.from_numpy(source.labels[indices]), source.classes)
