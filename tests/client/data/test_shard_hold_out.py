"""Images of a shard that are not trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hetero_client.data import open_source, partition
from hetero_client.data.settings import DataSettings
from hetero_client.data.shard import Shard, hold_out, load_shard, load_test, load_validation
from hetero_common.agreement.plan import Plan
from hetero_common.errors import SettingsError

PLAN = Plan(model="tinycnn", width=4, image_size=8, seed=3)


def data(
    validation: float, partition: Literal["iid", "dirichlet"] = "iid", alpha: float = 0.5
) -> DataSettings:
    return DataSettings(dataset="digits", partition=partition, alpha=alpha, validation=validation)


def pictures(shard: Shard) -> list[bytes]:
    return [image.numpy().tobytes() for image in shard.images]


def same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


# --- dividing a shard -----------------------------------------------------------------------------


@given(st.integers(4, 300), st.floats(0.001, 0.5), st.integers(0, 2**63 - 1))
def test_a_shard_is_divided_into_parts_in_its_order(size: int, share: float, seed: int) -> None:
    shard = np.arange(size, dtype=np.int64) * 3
    train, held_out = hold_out(shard, share, seed)
    assert sorted([*train.tolist(), *held_out.tolist()]) == shard.tolist()
    assert (np.diff(train) > 0).all()
    assert (np.diff(held_out) > 0).all()
    assert len(held_out) == max(1, round(share * size))


@given(st.integers(2, 300), st.integers(0, 2**63 - 1))
def test_without_a_share_a_shard_stays_as_it_is(size: int, seed: int) -> None:
    shard = np.arange(size, dtype=np.int64)
    train, held_out = hold_out(shard, 0.0, seed)
    assert train is shard
    assert len(held_out) == 0


def test_the_seed_says_which_images_are_held_out() -> None:
    shard = np.arange(1000, dtype=np.int64)
    one, again, other = (hold_out(shard, 0.1, seed)[1] for seed in (1, 1, 2))
    assert one.tolist() == again.tolist() != other.tolist()


def test_a_larger_share_holds_out_the_same_images_and_more() -> None:
    shard = np.arange(1000, dtype=np.int64)
    fewer, more = (set(hold_out(shard, share, 0)[1].tolist()) for share in (0.1, 0.2))
    assert fewer < more


@pytest.mark.parametrize(("size", "share", "left"), [(3, 0.5, 1), (10, 0.95, 0), (2, 0.01, 1)])
def test_enough_must_be_left_to_train_on(size: int, share: float, left: int) -> None:
    with pytest.raises(SettingsError) as refused:
        hold_out(np.arange(size, dtype=np.int64), share, 0)
    assert str(refused.value) == (
        f"--validation {share} leaves {left} of {size} images to train on, of at least 2 that it "
        "takes: hold out fewer"
    )


# --- loading --------------------------------------------------------------------------------------

partitions = pytest.mark.parametrize("kind", ["iid", "dirichlet"])


@partitions
def test_nothing_held_out_loads_the_whole_shard(kind: Literal["iid", "dirichlet"]) -> None:
    source = open_source("digits", DataSettings().data_dir, "train")
    deal: dict[str, Callable[[], list[partition.Indices]]] = {
        "iid": lambda: partition.iid(source.labels, 3, PLAN.seed),
        "dirichlet": lambda: partition.dirichlet(source.labels, 3, 0.5, PLAN.seed),
    }
    for index, indices in enumerate(deal[kind]()):
        loaded = load_shard(data(0.0, kind), PLAN, index, 3)
        assert same(loaded.images, source.read(indices, PLAN.image_size))
        assert loaded.labels.tolist() == source.labels[indices].tolist()
        assert len(load_validation(data(0.0, kind), PLAN, index, 3).labels) == 0


@partitions
def test_what_is_held_out_is_trained_on_by_nobody(kind: Literal["iid", "dirichlet"]) -> None:
    chosen = data(0.2, kind)
    trained = [load_shard(chosen, PLAN, index, 3) for index in range(3)]
    held_out = [load_validation(chosen, PLAN, index, 3) for index in range(3)]
    whole = [load_shard(data(0.0, kind), PLAN, index, 3) for index in range(3)]
    for train, validation, shard in zip(trained, held_out, whole, strict=True):
        assert sorted(pictures(train) + pictures(validation)) == sorted(pictures(shard))
        assert len(validation.labels) == round(0.2 * len(shard.labels))
    everything = [picture for shard in trained for picture in pictures(shard)]
    assert not set(everything) & {picture for shard in held_out for picture in pictures(shard)}
    test = set(pictures(load_test("digits", chosen.data_dir, PLAN)))
    assert not test & {picture for shard in held_out for picture in pictures(shard)}
