"""What every kind of data set offers, and the kind that is held in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from hetero_client.data.images import stack

Split = Literal["train", "test"]


class ImageSource(Protocol):
    """One split of a labeled data set, whose pixels are decoded only when asked for."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class, in the order of their labels."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Label of each image (N,), known without decoding one."""

    def read(self, indices: npt.NDArray[np.int64], image_size: int) -> torch.Tensor:
        """Decode some images into uint8 (n, 3, image_size, image_size), in the order asked."""


@dataclass(frozen=True)
class ArraySource:
    """A data set that was read as a whole: uint8 pixels (N, H, W, 3), or (N, H, W) if gray."""

    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]

    def read(self, indices: npt.NDArray[np.int64], image_size: int) -> torch.Tensor:
        """See `ImageSource.read`."""
        images = (Image.fromarray(self.pixels[index]).convert("RGB") for index in indices)
        return stack(images, len(indices), image_size)
