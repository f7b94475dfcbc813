"""Shards of set sizes. What `partition` draws without them is tested in test_partition.py."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data.test_partition import assert_equal, assert_is_partition
from hetero_client.data import dealing
from hetero_client.data.dealing import Dealing, deal, shard_sizes
from hetero_client.data.partition import Indices, dirichlet, iid
from hetero_common.errors import SettingsError

seeds = st.integers(0, 2**63 - 1)
TEN_CLASSES = np.repeat(np.arange(10), 500)
CUTS = (3, 4, 5)

Case = tuple[Indices, int, Dealing, tuple[int, ...]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Labels, a number of shards they are enough for, rules, and a cut layer for each shard."""
    num_shards = draw(st.integers(2, 12))
    min_size = draw(st.integers(2, 6))
    size = draw(st.integers(min_size * num_shards, 300))
    labels = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    alpha = draw(st.none() | st.floats(1e-300, 1.7e308) | st.sampled_from([0.1, 0.5]))
    spread = draw(st.sampled_from([0.0, 0.3, 1.0, 5.0]))
    skew = draw(st.sampled_from([0.0, 1e-9, 0.5, 0.99, 1.0]))
    cuts = draw(st.permutations([1, 2] + [draw(st.integers(1, 4)) for _ in range(num_shards - 2)]))
    return np.array(labels), num_shards, Dealing(alpha, min_size, spread, skew), tuple(cuts)


@given(cases(), seeds)
def test_everything_is_dealt_out_once_whatever_the_rules(case: Case, seed: int) -> None:
    labels, num_shards, rules, cuts = case
    shards = deal(labels, num_shards, rules, seed, cuts)
    assert len(shards) == num_shards
    assert_is_partition(shards, len(labels))
    assert min(len(shard) for shard in shards) >= rules.min_size
    assert_equal(shards, deal(labels.copy(), num_shards, rules, seed, cuts))
    if rules.size_spread or rules.cut_skew:
        sizes = shard_sizes(len(labels), num_shards, rules.size_spread, seed, rules.min_size)
        assert [len(shard) for shard in shards] == sizes.tolist()


@given(st.integers(2, 300), st.floats(0, 5), seeds, st.integers(2, 50), st.data())
def test_sizes_add_up_and_none_is_below_the_least(
    num_shards: int, spread: float, seed: int, least: int, data: st.DataObject
) -> None:
    num_images = data.draw(st.integers(num_shards * least, 100_000))
    sizes = shard_sizes(num_images, num_shards, spread, seed, least)
    assert sizes.sum() == num_images
    assert sizes.min() >= least
    assert np.array_equal(sizes, shard_sizes(num_images, num_shards, spread, seed, least))
    if not spread:
        assert sizes.max() - sizes.min() <= 1


def test_the_logarithm_of_sizes_has_the_spread() -> None:
    for spread in (0.3, 1.0):
        logarithms = np.log(shard_sizes(50_000_000, 5_000, spread, seed=1))
        assert logarithms.std() == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize(
    "rules",
    [
        Dealing(min_size=5),
        Dealing(alpha=0.5),
        Dealing(alpha=0.1, min_size=32),
        Dealing(alpha=100.0, min_size=9),
    ],
)
@pytest.mark.parametrize("num_shards", [1, 12, 100])
def test_without_spread_and_skew_the_shards_are_those_of_the_partition(
    rules: Dealing, num_shards: int
) -> None:
    if rules.alpha is None:
        expected = iid(TEN_CLASSES, num_shards, 5, rules.min_size)
    else:
        expected = dirichlet(TEN_CLASSES, num_shards, rules.alpha, 5, rules.min_size)
    assert_equal(deal(TEN_CLASSES, num_shards, rules, 5, CUTS), expected)


def commonest(shards: list[Indices], labels: Indices) -> float:
    """Mean share of a shard's commonest class."""
    return float(np.mean([np.bincount(labels[shard]).max() / len(shard) for shard in shards]))


@pytest.mark.parametrize("num_shards", [12, 100])
def test_label_skew_and_sizes_do_not_get_in_each_others_way(num_shards: int) -> None:
    """Skews are as strong as without set sizes, which need not be so for the lowest alpha."""
    for alpha in (100.0, 0.5, 0.1):
        free = dirichlet(TEN_CLASSES, num_shards, alpha, 1)
        fixed = deal(TEN_CLASSES, num_shards, Dealing(alpha, 8, size_spread=0.7), 1)
        assert commonest(fixed, TEN_CLASSES) == pytest.approx(commonest(free, TEN_CLASSES), abs=0.1)


def overlap(shards: list[Indices], cuts: tuple[int, ...], labels: Indices) -> float:
    """How alike the classes of two cut layers are: 1 the same shares, 0 no class in common."""
    shares = []
    for cut in sorted(set(cuts))[:2]:
        own = np.concatenate([s for s, its in zip(shards, cuts, strict=True) if its == cut])
        shares.append(np.bincount(labels[own], minlength=10) / len(own))
    return float(np.minimum(*shares).sum())


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_with_a_skew_by_cut_layers_devices_see_the_less_in_common_the_stronger_it_is(
    alpha: float | None,
) -> None:
    cuts = CUTS * 4
    alike = [
        overlap(deal(TEN_CLASSES, 12, Dealing(alpha, cut_skew=skew), 3, cuts), cuts, TEN_CLASSES)
        for skew in (1e-9, 0.25, 0.5, 0.75, 1.0)
    ]
    assert alike == sorted(alike, reverse=True)
    assert alike[0] > 0.98
    assert alike[2] == pytest.approx(0.5, abs=0.11)
    assert alike[4] < 0.11, "only a class that lies across a border is seen by both"


def test_groups_of_unequal_size_still_have_all_their_images_of_their_own_classes() -> None:
    cuts = (5, 3, 3, 3)
    shards = deal(TEN_CLASSES, 4, Dealing(cut_skew=1.0), 0, cuts)
    assert [len(shard) for shard in shards] == [1250] * 4
    deep, shallow = shards[0], np.concatenate(shards[1:])
    shared = set(TEN_CLASSES[deep]) & set(TEN_CLASSES[shallow])
    assert len(shared) == 1, "two and a half classes fill a quarter of the images"


def test_within_a_cut_layer_everybody_has_its_classes_alike() -> None:
    cuts = CUTS * 4
    shards = deal(TEN_CLASSES, 12, Dealing(cut_skew=1.0), 0, cuts)
    for cut in CUTS:
        held = [set(TEN_CLASSES[s]) for s, its in zip(shards, cuts, strict=True) if its == cut]
        assert held == [held[0]] * 4


def test_which_classes_are_whose_is_drawn() -> None:
    firsts = {
        tuple(np.unique(TEN_CLASSES[deal(TEN_CLASSES, 3, Dealing(cut_skew=1.0), seed, CUTS)[0]]))
        for seed in range(5)
    }
    assert len(firsts) > 1


def test_one_shard_is_everything() -> None:
    """So the centralized yardstick takes the settings of the run that it is held against."""
    rules = Dealing(0.1, size_spread=1.0, cut_skew=0.5)
    assert deal(TEN_CLASSES, 1, rules, 0)[0].tolist() == list(range(len(TEN_CLASSES)))


@pytest.mark.parametrize("cuts", [(), (3, 4), (3, 3, 3)])
def test_a_skew_by_cut_layers_takes_the_cut_layers_of_all(cuts: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match=r"takes the cut layers of all clients.*--cut-layers"):
        deal(TEN_CLASSES, 3, Dealing(cut_skew=0.5), 0, cuts)


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        (Dealing(size_spread=-1.0), "the size spread is -1.0, but must be 0 or more"),
        (Dealing(size_spread=math.nan), "the size spread is nan"),
        (Dealing(cut_skew=1.5), "the cut skew is 1.5, but must be within 0..1"),
        (Dealing(alpha=0.0, size_spread=1.0), "alpha is 0.0, but must be a positive number"),
        (Dealing(min_size=2000, size_spread=1.0), "too few for 3 shards of at least 2000"),
    ],
)
def test_numbers_out_of_range_are_named(rules: Dealing, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        deal(TEN_CLASSES, 3, rules, 0, CUTS)


# --- for ever -------------------------------------------------------------------------------------


def test_shards_do_not_hang_on_the_last_bit_of_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices of one fleet may add up in another order, and must not come to other shards."""
    rules = Dealing(0.1, 8, size_spread=1.0, cut_skew=0.5)
    before = deal(TEN_CLASSES, 100, rules, 2, (3, 4) * 50)
    monkeypatch.setattr(dealing, "_SWEEPS", dealing._SWEEPS + 1)
    assert_equal(deal(TEN_CLASSES, 100, rules, 2, (3, 4) * 50), before)


def test_a_seed_gives_the_same_sizes_for_ever() -> None:
    sizes = shard_sizes(5000, 12, 1.0, 7, 32)
    assert sizes.tolist() == [784, 169, 201, 1068, 187, 412, 349, 448, 449, 159, 412, 362]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Dealing(None, size_spread=1.0), [[0, 5, 7, 8, 9, 10], [1, 2, 4], [3, 6, 11]]),
        (Dealing(0.5, size_spread=1.0), [[0, 3, 4, 7, 8, 11], [2, 6, 10], [1, 5, 9]]),
        (Dealing(None, cut_skew=1.0), [[8, 9, 10, 11], [0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_a_seed_gives_the_same_shards_for_ever(rules: Dealing, expected: list[list[int]]) -> None:
    shards = deal(np.array([0] * 4 + [1] * 4 + [2] * 4), 3, rules, 7, CUTS)
    assert [shard.tolist() for shard in shards] == expected


@pytest.mark.parametrize(
    ("rules", "num_shards", "digest"),
    [
        (Dealing(0.5, 32), 12, "dfddcaad5bb09738"),
        (Dealing(0.5, 32), 100, "b310951cd3095364"),
        (Dealing(0.1, 32), 12, "07eb2217b0b8d525"),
        (Dealing(0.1, 32), 100, "eb44dfc43340bc5b"),
        (Dealing(None, 32, size_spread=1.0), 100, "3042c5705678c34d"),
        (Dealing(0.1, 32, size_spread=1.0, cut_skew=0.5), 12, "d32af224b2eb9248"),
        (Dealing(0.1, 32, size_spread=1.0, cut_skew=0.5), 100, "6c490c6699f9a8b5"),
    ],
)
def test_large_fleets_are_dealt_out_the_same_for_ever(
    rules: Dealing, num_shards: int, digest: str
) -> None:
    cuts = [CUTS[index % 3] for index in range(num_shards)]
    shards = deal(TEN_CLASSES, num_shards, rules, 7, cuts)
    text = ";".join(",".join(map(str, shard.tolist())) for shard in shards)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest
    assert min(len(shard) for shard in shards) >= 32
