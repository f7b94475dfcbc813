"""How a data set is dealt out to the clients.

Every client works out all shards and keeps its own: given equal labels and seed they agree, so
nothing has to be sent. Shards are disjoint, cover the data set, and list their images in order.
"""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt

from hetero_common.compute.seeding import derive_seed, permutation
from hetero_common.errors import SettingsError

MIN_SHARD_SIZE = 2
"""Images. BatchNorm cannot train on one."""

_EVEN_ALPHA = 1e9
"""From here on proportions are equal to the image; their sum would overflow at far higher ones."""

Indices = npt.NDArray[np.int64]


def parse_shard(text: str) -> tuple[int, int]:
    """Read `I/N`, where people count from 1.

    Returns:
        Index into the list of shards, from 0, and how many there are: `1/3` is (0, 3).

    Raises:
        SettingsError: It is not of that form, or there is no such shard.
    """
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise SettingsError(
            f"shard {text!r} does not exist: write I/N, counted from 1, such as 1/3, 2/3 or 3/3"
        )
    return number - 1, count


def parse_cuts(text: str | None, count: int) -> list[int]:
    """Read cut layers `3,4,5`, which are dealt out to `count` clients in turn; of None, none.

    Raises:
        SettingsError: It is not of that form.
    """
    if text is None:
        return []
    parts = text.split(",")
    if not all(part.strip().isdecimal() and part.isascii() for part in parts):
        raise SettingsError(
            f"setting cut-layers: write numbers separated by commas, such as 3,4,5, not {text!r}"
        )
    return [int(parts[index % len(parts)]) for index in range(count)]


def iid(
    labels: npt.NDArray[np.int64], num_shards: int, seed: int, min_size: int = MIN_SHARD_SIZE
) -> list[Indices]:
    """Shuffle and deal out evenly: sizes differ by at most one.

    Args:
        labels: (N,), of which only the number matters.
        num_shards: One per client.
        seed: The run's seed.
        min_size: Images that each shard must get.

    Returns:
        For each shard, the sorted indices of its images.

    Raises:
        SettingsError: There are not enough images, or `num_shards` is no count.
    """
    require_enough(len(labels), num_shards, min_size)
    order = permutation(len(labels), derive_seed("iid", seed))
    return [np.sort(shard) for shard in np.array_split(order, num_shards)]


def dirichlet(
    labels: npt.NDArray[np.int64],
    num_shards: int,
    alpha: float,
    seed: int,
    min_size: int = MIN_SHARD_SIZE,
) -> list[Indices]:
    """Deal out each class in proportions drawn from Dir(alpha), the usual label skew.

    The lower alpha, the fewer classes a shard holds (Yurochkin et al., Bayesian Nonparametric
    Federated Learning of Neural Networks, ICML 2019). Sizes come out as they do; shards that come
    out too small are filled up from the largest. To draw again until none is too small, as others
    do, would not end for many clients and a low alpha.

    Args:
        labels: (N,).
        num_shards: One per client.
        alpha: Concentration, > 0.
        seed: The run's seed.
        min_size: Images that each shard gets at least.

    Returns:
        For each shard, the sorted indices of its images.

    Raises:
        SettingsError: `alpha` is not positive, there are not enough images, or `num_shards` is no
            count.
    """
    require_enough(len(labels), num_shards, min_size)
    random = np.random.Generator(np.random.PCG64(derive_seed("dirichlet", seed)))
    concentrations = symmetric(alpha, num_shards)
    shards: list[list[int]] = [[] for _ in range(num_shards)]
    for members in shuffled_classes(labels, seed):
        ends = np.cumsum(random.dirichlet(concentrations))[:-1] * len(members)
        for shard, share in zip(shards, np.split(members, ends.astype(np.int64)), strict=True):
            shard.extend(share.tolist())
    _fill_up(shards, min_size, seed)
    return [np.array(sorted(shard), dtype=np.int64) for shard in shards]


def symmetric(alpha: float, size: int) -> npt.NDArray[np.float64]:
    """The parameters (size,) of a Dirichlet distribution that favours nobody.

    Raises:
        SettingsError: `alpha` is not positive.
    """
    if not (alpha > 0 and math.isfinite(alpha)):
        raise SettingsError(f"alpha is {alpha}, but must be a positive number, such as 0.5")
    return np.full(size, min(alpha, _EVEN_ALPHA))


def shuffled_classes(labels: npt.NDArray[np.int64], seed: int) -> list[Indices]:
    """The positions of each class that there is, in drawn orders; classes in their own order."""
    order = permutation(len(labels), derive_seed("dirichlet members", seed))
    return [order[labels[order] == label] for label in np.unique(labels)]


def _fill_up(shards: list[list[int]], min_size: int, seed: int) -> None:
    """Move single images, of any class, from whichever shard is then the largest."""
    for number, shard in enumerate(shards):
        while len(shard) < min_size:
            donor = max(shards, key=len)
            pick = derive_seed("fill up", seed, number, len(shard)) % len(donor)
            shard.append(donor.pop(pick))


def require_enough(num_images: int, num_shards: int, min_size: int) -> None:
    """Raise SettingsError unless every shard can get `min_size` images."""
    if num_shards < 1:
        raise SettingsError(f"the number of shards is {num_shards}, but must be at least 1")
    if num_images < num_shards * min_size:
        raise SettingsError(
            f"{num_images} images are too few for {num_shards} shards of at least {min_size}: "
            "use fewer shards, or a lower --min-shard"
        )
