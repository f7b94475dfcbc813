"""Random changes of training images, as pure functions of a seed."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from hetero_common.registry import Registry

Augmentation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""(uint8 images (B, 3, H, W), generator of all that is drawn) -> as many of the same shape."""

AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")


def augment(images: torch.Tensor, name: str, seed: int) -> torch.Tensor:
    """Change each image at random.

    Args:
        images: uint8 (B, 3, H, W).
        name: How, by its name in `AUGMENTATIONS` or as the user's own.
        seed: Decides everything; see `hetero_common.compute.seeding.derive_seed`.

    Returns:
        uint8 (B, 3, H, W).
    """
    if name == "none":
        return images
    return AUGMENTATIONS[name](images, torch.Generator().manual_seed(seed))


@AUGMENTATIONS.add("none", "images as they are")
def none(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images as they are."""
    return images


@AUGMENTATIONS.add("crop", "a random crop after padding by an eighth of the side")
def crop(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift each image by up to H // 8 pixels, 4 at 32x32: the usual recipe for CIFAR."""
    return _random_crop(images, generator)


@AUGMENTATIONS.add("crop-flip", "the same, and half of the images mirrored")
def crop_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift each image, then mirror it with probability 1/2."""
    return _random_flip(_random_crop(images, generator), generator)


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
