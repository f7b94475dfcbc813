"""Images made up for tests, as pixels and as the files that hold them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from hetero_client.data import ImageSource

Pixels = npt.NDArray[np.uint8]
Files = dict[str, bytes]


def noise(*shape: int, seed: int = 0) -> Pixels:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(pixels: npt.NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """The content of an image file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def channels_first(pixels: Pixels) -> torch.Tensor:
    """Pixels (N, H, W, 3) as a tensor (N, 3, H, W)."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def read_all(source: ImageSource, image_size: int) -> torch.Tensor:
    """Every image of a source, in its order."""
    return source.read(np.arange(len(source.labels)), image_size)
