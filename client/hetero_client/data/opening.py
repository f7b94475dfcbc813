"""Data sets by their names, opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hetero_client.data.folder import FolderSource
from hetero_client.data.source import DATASETS, ImageSource, Split
from hetero_common.errors import SettingsError

_FOLDER = "folder:"


def open_source(dataset: str, data_dir: Path, split: Split) -> ImageSource:
    """Open one split of a data set; nothing but what is needed is imported, read or downloaded.

    Args:
        dataset: A name of `DATASETS`, such as `digits` or `folder:PATH`, or the user's own.
        data_dir: Where data sets that are downloaded are kept.
        split: The part to train on, or the one to evaluate on.

    Raises:
        SettingsError: There is no such data set, or it cannot be read.
    """
    kind, colon, path = dataset.partition(":")
    if f"{kind}{colon}" in DATASETS.names() and colon:
        if not path:
            raise DATASETS.unknown(dataset)
        return DATASETS[f"{kind}{colon}"](path, data_dir, split)
    return DATASETS[dataset]("", data_dir, split)


def open_validation(dataset: str, classes: Sequence[str]) -> ImageSource:
    """Open the images `validation/<class>/*` of `folder:PATH`; other kinds have none.

    Args:
        dataset: `folder:PATH`.
        classes: Of the device, in the order of their labels.

    Raises:
        SettingsError: It is no folder, cannot be read, or has images of another class.
    """
    if not dataset.startswith(_FOLDER) or dataset == _FOLDER:
        raise SettingsError(
            f"{dataset} is not for choosing a threshold: leave --dataset out to take the images "
            "that were held out, or give folder:PATH with validation/<class>/<image>"
        )
    path = Path(dataset.removeprefix(_FOLDER)).expanduser()
    return FolderSource(path, "validation", tuple(classes))
