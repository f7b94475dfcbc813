"""Which images make up a batch, and how they are augmented.

Pure functions of the seed, the client and the step, equal bit for bit in every process: a resumed
run draws the same batches. Nothing here uses or disturbs a global random state.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

Augmentation = Literal["none", "crop", "crop-flip"]


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


def steps_per_epoch(shard_size: int, batch_size: int) -> int:
    """Count the full batches in a shard; a shard smaller than a batch is one batch."""
    return max(1, shard_size // batch_size)


def batch_indices(
    shard_size: int, batch_size: int, global_step: int, seed: int, client_id: str
) -> npt.NDArray[np.int64]:
    """Say which images of its shard a client trains on.

    The shard is reshuffled every epoch; what an epoch leaves over of the last, incomplete batch is
    dropped. Rounds play no part: of whatever length, they walk the same sequence of steps.

    Args:
        shard_size: Images the client holds.
        batch_size: Images per step.
        global_step: Steps the client has made since the run began.
        seed: The run's seed.
        client_id: Gives each client its own order.

    Returns:
        Positions in the shard, (min(batch_size, shard_size),).
    """
    epoch, step = divmod(global_step, steps_per_epoch(shard_size, batch_size))
    order = _epoch_order(shard_size, epoch, seed, client_id)
    return order[step * batch_size : (step + 1) * batch_size].copy()


@functools.lru_cache(maxsize=16)  # a device needs one, a simulator one per client
def _epoch_order(shard_size: int, epoch: int, seed: int, client_id: str) -> npt.NDArray[np.int64]:
    return permutation(shard_size, derive_seed("epoch", seed, client_id, epoch))


def augment(images: torch.Tensor, mode: Augmentation, seed: int) -> torch.Tensor:
    """Shift each image at random, and mirror half of them.

    Args:
        images: uint8 (B, 3, H, W).
        mode: `crop` pads H // 8 black pixels on each side (4 at 32x32, the usual recipe for CIFAR)
            and cuts H x W out again; `crop-flip` also mirrors each image with probability 1/2.
        seed: Decides everything; see `derive_seed`.

    Returns:
        uint8 (B, 3, H, W).
    """
    if mode == "none":
        return images
    generator = torch.Generator().manual_seed(seed)
    cropped = _random_crop(images, generator)
    return _random_flip(cropped, generator) if mode == "crop-flip" else cropped


def _random_crop(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    batch, _, height, width = images.shape
    margin = height // 8
    top, left = torch.randint(0, 2 * margin + 1, (2, batch), generator=generator).to(images.device)
    padded = F.pad(images, (margin,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view, (B, 3, top, left, H, W)
    return windows[torch.arange(batch, device=images.device), :, top, left]


def _random_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    mirrored = torch.randint(0, 2, (len(images), 1, 1, 1), generator=generator).bool()
    return torch.where(mirrored.to(images.device), images.flip(-1), images)
