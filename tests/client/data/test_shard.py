"""A device's own shard, from the same settings as everybody's and its own number."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from hetero_client.data import open_source
from hetero_client.data.dealing import Dealing, deal
from hetero_client.data.partition import parse_shard
from hetero_client.data.settings import DataSettings
from hetero_client.data.shard import load_shard, load_validation
from hetero_client.settings import ClientSettings
from hetero_common.agreement.plan import Plan
from hetero_common.settings import load

PLAN = Plan(image_size=8, normalization="digits", seed=11)
CUTS = "2,3,5"
DATA = {
    "even": (),
    "skewed": ("--partition", "dirichlet", "--alpha", "0.1", "--min-shard", "32"),
    "unequal": ("--size-spread", "1", "--min-shard", "32"),
    "by cut layer": ("--cut-skew", "0.7"),
    "all": ("--partition", "dirichlet", "--size-spread", "0.5", "--cut-skew", "0.7"),
}


def client(number: int, count: int, *flags: str) -> ClientSettings:
    cut = CUTS.split(",")[(number - 1) % 3]
    own = ("--shard", f"{number}/{count}", "--cut-layer", cut, "--cut-layers", CUTS)
    return load(ClientSettings, [*own, "--dataset", "digits", *flags], "hetero-client")


@pytest.mark.parametrize("kind", DATA)
def test_each_device_draws_its_own_shard_of_one_partition(kind: str) -> None:
    """Nothing but settings passes between them, and together they hold everything once."""
    count = 7
    source = open_source("digits", DataSettings().data_dir, "train")
    together = []
    for number in range(1, count + 1):
        settings = client(number, count, *DATA[kind])
        index, _ = parse_shard(settings.shard)
        shard = load_shard(settings, PLAN, index, count, settings.cuts())
        dealt = deal(source.labels, count, settings.dealing(), PLAN.seed, settings.cuts())[index]
        assert torch.equal(shard.images, source.read(dealt, 8))
        assert shard.labels.tolist() == source.labels[dealt].tolist()
        together.append(dealt)
    assert sorted(np.concatenate(together).tolist()) == list(range(len(source.labels)))


def test_rules_are_those_of_the_settings() -> None:
    assert client(1, 3).dealing() == Dealing()
    assert client(1, 3, *DATA["skewed"]).dealing() == Dealing(0.1, 32)
    assert client(1, 3, *DATA["all"]).dealing() == Dealing(0.5, 2, 0.5, 0.7)
    assert client(1, 3, "--alpha", "0.1").dealing() == Dealing(), "alpha is of the dirichlet"


def test_a_device_whose_shard_is_below_a_batch_says_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plan = PLAN.model_copy(update={"batch_size": 64})
    small = ("--partition", "dirichlet", "--alpha", "0.1")
    sizes = []
    for flags in (small, (*small, "--min-shard", "64")):
        shards = [load_shard(client(n, 12, *flags), plan, n - 1, 12) for n in range(1, 13)]
        sizes.append([len(shard.labels) for shard in shards])
    below = [number for number, size in enumerate(sizes[0], start=1) if size < 64]
    warnings = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert 0 < len(below) == len(warnings) and min(sizes[1]) >= 64
    assert warnings[0] == (
        f"shard {below[0]}/12 has {sizes[0][below[0] - 1]} images to train on, less than a "
        "batch: with --min-shard 64, on all clients alike, it would be filled up from the largest"
    )


def test_what_is_held_out_does_not_fill_a_batch(caplog: pytest.LogCaptureFixture) -> None:
    """What is advised makes up for it."""
    plan = PLAN.model_copy(update={"batch_size": 64})
    held = ("--partition", "dirichlet", "--alpha", "0.1", "--validation", "0.3")
    for least, warned in ((64, True), (92, False)):
        flags = (*held, "--min-shard", str(least))
        shards = [load_shard(client(n, 12, *flags), plan, n - 1, 12) for n in range(1, 13)]
        assert (min(len(shard.labels) for shard in shards) < 64) == warned
        assert any("with --min-shard 92" in text for text in caplog.messages) == warned
        caplog.clear()


@pytest.mark.parametrize("kind", DATA)
def test_validation_images_are_held_out_of_the_own_shard_as_it_was_dealt(kind: str) -> None:
    count = 7
    for number in range(1, count + 1):
        whole, divided = (
            client(number, count, *DATA[kind], *flags) for flags in ((), ("--validation", "0.2"))
        )
        cuts = divided.cuts()
        shard = load_shard(whole, PLAN, number - 1, count, cuts)
        train = load_shard(divided, PLAN, number - 1, count, cuts)
        held = load_validation(divided, PLAN, number - 1, count, cuts)
        assert len(held.labels) == max(1, round(0.2 * len(shard.labels)))
        together = [image.numpy().tobytes() for part in (train, held) for image in part.images]
        assert sorted(together) == sorted(image.numpy().tobytes() for image in shard.images)
