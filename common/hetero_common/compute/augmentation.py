"""Random changes of training images, as pure functions of a seed."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

Augmentation = Literal["none", "crop", "crop-flip"]


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
