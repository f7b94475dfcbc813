"""Seeds of everything random: each draw is a function of what it is for, and has no state.

Equal bit for bit in every process, so that a run that is resumed draws what it would have drawn.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch


def derive_seed(*parts: object) -> int:
    """Hash what a draw depends on into a seed of 63 bits, as numpy and torch both take it.

    Args:
        parts: Told apart by their `str`; by convention the first names the purpose.
    """
    texts = map(str, parts)
    message = "".join(f"{len(text)}:{text}" for text in texts)  # lengths: ("a", "b") is not ("ab",)
    digest = hashlib.blake2b(message.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def permutation(size: int, seed: int) -> npt.NDArray[np.int64]:
    """Shuffle 0..size-1.

    Sorts raw random words, since numpy promises the same words, but not the same
    `Generator.permutation`, in all its versions; devices of one fleet may run different ones.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(size), kind="stable").astype(
        np.int64, copy=False
    )


def seed_step(seed: int, *scope: object) -> None:
    """Seed the global generators for one step, so that dropout is a function of its scope too."""
    # torch.manual_seed() asks every backend there is, which takes longer than moving the batch.
    number = derive_seed(seed, *scope)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(number)


@contextlib.contextmanager
def seeded(seed: int, *scope: object) -> Iterator[None]:
    """Seed the global generator inside the block and put its state back after it."""
    with torch.random.fork_rng(devices=[]):
        seed_step(seed, *scope)
        yield
