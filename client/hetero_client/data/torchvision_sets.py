"""`--dataset cifar10|cifar100|stl10`: torchvision's readers, downloaded on first use.

Sources: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009 (CIFAR); Coates,
Lee and Ng, An Analysis of Single-Layer Networks in Unsupervised Feature Learning, 2011 (STL-10).
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hetero_client.data.source import ArraySource, Split
from hetero_client.data.torchvision_shim import torchvision
from hetero_common.errors import SettingsError


class LabeledSTL10(torchvision.datasets.STL10):  # type: ignore[misc]  # torchvision is untyped
    """STL-10 without its 2.6 GB of unlabeled images, whose checksum each start would wait for."""

    train_list = torchvision.datasets.STL10.train_list[:2]

    def _check_integrity(self) -> bool:
        # torchvision goes on without this file, and then has no class names
        class_names = Path(self.root, self.base_folder, self.class_names_file)
        return class_names.is_file() and super()._check_integrity()


_READERS = {
    "cifar10": torchvision.datasets.CIFAR10,
    "cifar100": torchvision.datasets.CIFAR100,
    "stl10": LabeledSTL10,
}


def open_builtin(dataset: str, data_dir: Path, split: Split) -> ArraySource:
    """Read one split of `cifar10`, `cifar100` or `stl10`; torchvision verifies the checksums.

    Args:
        dataset: Its name.
        data_dir: Where the archive is, or goes to.
        split: Which of the official splits.

    Raises:
        SettingsError: The files are missing and cannot be downloaded, or they are damaged.
    """
    reader = _READERS[dataset]
    archive = reader.filename
    state = "is damaged" if (data_dir / reader.base_folder).exists() else "is not"
    try:
        with contextlib.suppress(RuntimeError):  # torchvision's way to say missing or damaged
            return _read(reader, data_dir, split)
        with _one_process_at_a_time(data_dir):
            return _read(reader, data_dir, split, download=True)
    except (OSError, http.client.HTTPException) as error:
        raise SettingsError(
            f"{dataset} {state} in {data_dir} and could not be downloaded ({error}): "
            f"put {archive} there, or use --dataset digits"
        ) from error
    except RuntimeError as error:
        raise SettingsError(
            f"{dataset} in {data_dir} is damaged: delete {archive} and {reader.base_folder} there, "
            "and it will be downloaded again"
        ) from error


def _read(reader: Any, root: Path, split: Split, *, download: bool = False) -> ArraySource:
    if reader is LabeledSTL10:
        images = reader(root, split=split, download=download)
        labels, pixels = images.labels, images.data.transpose(0, 2, 3, 1)
    else:
        images = reader(root, train=split == "train", download=download)
        labels, pixels = images.targets, images.data
    return ArraySource(tuple(images.classes), np.asarray(labels, dtype=np.int64), pixels)


@contextlib.contextmanager
def _one_process_at_a_time(folder: Path) -> Iterator[None]:
    """Clients that start together on one machine would write the same archive at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".download.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
