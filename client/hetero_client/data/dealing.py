"""Shards of set sizes: unequal ones, and ones whose classes depend on the cut layer.

As in `partition`, everything is a function of the settings: every client works out all shards and
keeps its own. Arithmetic in floating point may differ in its last bit from machine to machine; so
it is only ever compared with drawn numbers, and what must be exact is set right in integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from hetero_client.data.partition import (
    MIN_SHARD_SIZE,
    Indices,
    dirichlet,
    iid,
    require_enough,
    shuffled_classes,
    symmetric,
)
from hetero_common.compute.seeding import derive_seed, permutation
from hetero_common.errors import SettingsError

_SWEEPS = 500
"""Enough for tables of hundreds of clients to be right to an image; integers do the rest."""
_LEAST_WANTED = 1e-6
"""Share of each class that every client wants at least, so that all images find a place."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dealing:
    """How images are dealt out; the defaults are `partition.iid`.

    Attributes:
        alpha: Concentration of the label skew (see `partition.dirichlet`); None: no skew.
        min_size: Images that each shard gets at least.
        size_spread: Standard deviation of the logarithm of the shards' sizes.
        cut_skew: Share of the images, 0 to 1, that go by their class to the clients of one cut
            layer only.
    """

    alpha: float | None = None
    min_size: int = MIN_SHARD_SIZE
    size_spread: float = 0.0
    cut_skew: float = 0.0


def deal(
    labels: npt.NDArray[np.int64],
    num_shards: int,
    dealing: Dealing,
    seed: int,
    cuts: Sequence[int] = (),
) -> list[Indices]:
    """Deal out a data set.

    With a spread or a skew by cut layers, sizes are those of `shard_sizes`. Label skew then is a
    mixture of classes for each client, drawn from Dir(alpha) and fitted to sizes and classes.

    Args:
        labels: (N,).
        num_shards: One per client.
        dealing: The rules.
        seed: The run's seed.
        cuts: Cut layer of each client; needed with a skew by cut layers.

    Returns:
        For each shard, the sorted indices of its images. They are disjoint and cover the data set.

    Raises:
        SettingsError: There are not enough images, a number is out of range, or there are not two
            cut layers to tell apart.
    """
    if not dealing.size_spread and not dealing.cut_skew:
        if dealing.alpha is None:
            return iid(labels, num_shards, seed, dealing.min_size)
        return dirichlet(labels, num_shards, dealing.alpha, seed, dealing.min_size)
    sizes = shard_sizes(len(labels), num_shards, dealing.size_spread, seed, dealing.min_size)
    shards: list[Indices] = [np.empty(0, dtype=np.int64)] * num_shards
    for clients, pool in _pools(labels, sizes, dealing.cut_skew, cuts, seed):
        if dealing.alpha is None:
            parts = _cut_up(len(pool), sizes[clients], derive_seed("pool", seed, int(clients[0])))
        else:
            parts = _mix(labels[pool], clients, sizes[clients], dealing.alpha, seed)
        for client, part in zip(clients, parts, strict=True):
            shards[client] = np.sort(pool[part])
    return shards


def shard_sizes(
    num_images: int, num_shards: int, spread: float, seed: int, min_size: int = MIN_SHARD_SIZE
) -> Counts:
    """Sizes (num_shards,) that add up to `num_images`.

    Every shard gets `min_size`; the rest is dealt out in proportion to exp(spread * z), with z of a
    standard normal distribution: two of three are within a factor of exp(spread) of the median.
    Without a spread they differ by at most one.

    Raises:
        SettingsError: There are not enough images, or a number is out of range.
    """
    if not (spread >= 0 and math.isfinite(spread)):
        raise SettingsError(f"the size spread is {spread}, but must be 0 or more, such as 1")
    require_enough(num_images, num_shards, min_size)
    if not spread:
        base, extra = divmod(num_images, num_shards)
        return base + (np.arange(num_shards) < extra).astype(np.int64)
    normal = NormalDist()
    weights = [
        math.exp(spread * normal.inv_cdf(share))
        for share in _uniform(num_shards, derive_seed("sizes", seed))
    ]
    ends = np.cumsum(weights)
    filled = np.floor(ends / ends[-1] * (num_images - num_shards * min_size) + 0.5)
    sizes: Counts = min_size + np.diff(filled.astype(np.int64), prepend=0)
    return sizes


def _pools(
    labels: npt.NDArray[np.int64], sizes: Counts, skew: float, cuts: Sequence[int], seed: int
) -> Iterator[tuple[Counts, Indices]]:
    """The clients of each cut layer, shallowest first, and the images that they share."""
    everyone = np.arange(len(sizes))
    if not skew or len(sizes) == 1:
        yield everyone, np.arange(len(labels))
        return
    if not 0 <= skew <= 1:
        raise SettingsError(f"the cut skew is {skew}, but must be within 0..1")
    if len(cuts) != len(sizes) or len(set(cuts)) < 2:
        raise SettingsError(
            "a skew by cut layers takes the cut layers of all clients, two different ones at "
            "least: give --cut-layers such as 3,4,5, or leave --cut-skew out"
        )
    groups = [everyone[np.array(cuts) == cut] for cut in sorted(set(cuts))]
    members = shuffled_classes(labels, seed)
    counts = np.array([len(each) for each in members])
    table = _classes_of_groups(np.array([sizes[g].sum() for g in groups]), counts, skew, seed)
    yield from zip(groups, _by_table(members, table), strict=True)


def _classes_of_groups(totals: Counts, counts: Counts, skew: float, seed: int) -> Counts:
    """Decide how many images of each class (columns) each group (rows) gets.

    Laid out on a line, class after class in a drawn order, the images of a stretch as long as its
    total are a group's own. Of each class a share of `skew` goes where it lies, the rest to all.
    """
    order = permutation(len(counts), derive_seed("classes of cut layers", seed))
    class_ends, group_ends = np.cumsum(counts[order]), np.cumsum(totals)[:, None]
    first = np.maximum(class_ends - counts[order], group_ends - totals[:, None])
    own = np.empty((len(totals), len(counts)), dtype=np.int64)
    own[:, order] = np.maximum(np.minimum(class_ends, group_ends) - first, 0)
    if skew == 1:
        return own
    even = np.outer(totals, counts) / counts.sum()
    seed = derive_seed("groups", seed)
    return _fit((1 - skew) * even + skew * own, totals, counts, seed)


def _cut_up(num_images: int, sizes: Counts, seed: int) -> list[Indices]:
    """Shuffle, and cut into parts of these sizes."""
    return np.split(permutation(num_images, seed), np.cumsum(sizes)[:-1])


def _mix(
    labels: npt.NDArray[np.int64], clients: Counts, sizes: Counts, alpha: float, seed: int
) -> list[Indices]:
    """Parts of these sizes, of which each has a mixture of classes of its own."""
    members = shuffled_classes(labels, seed)
    counts = np.array([len(each) for each in members])
    mixtures = np.stack([_mixture(alpha, len(counts), seed, int(client)) for client in clients])
    fitted = _fit(mixtures, sizes, counts, derive_seed("fit", seed, int(clients[0])))
    return _by_table(members, fitted)


def _mixture(alpha: float, classes: int, seed: int, client: int) -> npt.NDArray[np.float64]:
    random = np.random.Generator(np.random.PCG64(derive_seed("mixture", seed, client)))
    return np.maximum(random.dirichlet(symmetric(alpha, classes)), _LEAST_WANTED)


def _by_table(members: Sequence[Indices], table: Counts) -> list[Indices]:
    """Each row's part: as many of each class's members, in order, as its row says."""
    cut = [
        np.split(each, np.cumsum(column)[:-1])
        for each, column in zip(members, table.T, strict=True)
    ]
    return [np.concatenate(parts) for parts in zip(*cut, strict=True)]


def _fit(wanted: npt.NDArray[np.float64], rows: Counts, columns: Counts, seed: int) -> Counts:
    """The table of whole numbers with these sums that is most like `wanted`, but for rounding.

    Scaling rows and columns in turn (iterative proportional fitting) keeps the proportions that
    were wanted as far as the sums allow. Fractions are rounded by a drawn number for each row.

    Args:
        wanted: (R, C), all positive.
        rows: (R,), sums.
        columns: (C,), sums; they add up to as much.
        seed: Decides the rounding.
    """
    table = wanted.copy()
    for _ in range(_SWEEPS):
        table *= columns / table.sum(axis=0)
        table *= (rows / table.sum(axis=1))[:, None]
    ends = np.cumsum(table, axis=1)
    exact = ends / ends[:, -1:] * rows[:, None]
    whole = np.floor(exact + np.array(_uniform(len(rows), seed))[:, None]).astype(np.int64)
    fitted: Counts = np.diff(whole, axis=1, prepend=0)
    excess = fitted.sum(axis=0) - columns
    while excess.any():
        most, least = int(excess.argmax()), int(excess.argmin())
        row = int(fitted[:, most].argmax())
        fitted[row, most] -= 1
        fitted[row, least] += 1
        excess[most] -= 1
        excess[least] += 1
    return fitted


def _uniform(size: int, seed: int) -> list[float]:
    """Within 0..1, without the ends; from raw words, which all versions of numpy draw alike."""
    words = np.random.PCG64(seed).random_raw(size)
    return [((int(word) >> 12) + 0.5) / 2**52 for word in words]
