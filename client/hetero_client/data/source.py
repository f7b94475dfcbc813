"""What every kind of data set offers, and the kind that is held in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from hetero_client.data.images import stack
from hetero_common.registry import Registry

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


OpenSource = Callable[[str, Path, Split], ImageSource]
"""(what follows the colon of its name, folder of downloads, split) -> the images of a split."""


def _has_path(name: str) -> bool:
    """Whether a name is that of a kind with a path, `folder:PATH`."""
    kind, colon, path = name.partition(":")
    return bool(colon and path) and f"{kind}:" in DATASETS.names()


DATASETS: Registry[OpenSource] = Registry("data set", takes=_has_path)
"""What `--dataset` names; `kind:` is the name of a kind that takes a path behind it."""


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
