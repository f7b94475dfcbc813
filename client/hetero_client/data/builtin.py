"""`--dataset cifar10|cifar100|stl10`, which torchvision reads, and downloads on first use."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hetero_client.data.source import DATASETS, ImageSource, Split


def _open(name: str, path: str, data_dir: Path, split: Split) -> ImageSource:
    from hetero_client.data.torchvision_sets import open_builtin  # takes seconds to import

    return open_builtin(name, data_dir, split)


for _name, _summary in (
    ("cifar10", "60,000 images of 32x32 in 10 classes"),
    ("cifar100", "60,000 images of 32x32 in 100 classes"),
    ("stl10", "13,000 images of 96x96 in 10 classes"),
):
    DATASETS.add(_name, _summary)(partial(_open, _name))
