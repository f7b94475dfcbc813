"""From an encoded image of any shape to the square uint8 pixels that a model takes.

All arithmetic is Pillow's, which is done in integers: every machine gets the same pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image, ImageOps

from hetero_common.errors import SettingsError


def decode(encoded: bytes, name: str) -> Image.Image:
    """Decode an image file to RGB, upright as its camera meant it.

    Args:
        encoded: Content of the file.
        name: What an error calls the file.

    Raises:
        SettingsError: The file is damaged or holds no picture.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except Exception as error:  # each of Pillow's decoders fails with exceptions of its own
        raise SettingsError(f"{name} cannot be read as an image ({error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError("its 32-bit pixels have no known range")
    if image.mode.startswith("I;16"):  # Pillow would clip at 255 instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "transparency" in image.info:  # Pillow warns when a palette's transparency is lost
        image = image.convert("RGBA")
    return image.convert("RGB")


def fit(image: Image.Image, image_size: int) -> Image.Image:
    """Resize the shorter side to `image_size` (antialiased bilinear), then crop the center.

    Rounds as torchvision's `Resize` and `CenterCrop` do. An image of that size comes back as it is.
    """
    if image.size == (image_size, image_size):
        return image
    shorter = min(image.size)
    width, height = (image_size * side // shorter for side in image.size)
    left, top = round((width - image_size) / 2), round((height - image_size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + image_size, top + image_size))


def stack(images: Iterable[Image.Image], count: int, image_size: int) -> torch.Tensor:
    """Fit `count` RGB images, one at a time, into one uint8 tensor (count, 3, size, size)."""
    pixels_NCHW = np.empty((count, 3, image_size, image_size), dtype=np.uint8)
    for pixels_CHW, image in zip(pixels_NCHW, images, strict=True):
        pixels_CHW[...] = np.asarray(fit(image, image_size)).transpose(2, 0, 1)
    return torch.from_numpy(pixels_NCHW)
