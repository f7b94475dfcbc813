"""Data sets, one file per kind behind one interface.

Another kind is another file and another line in `open_source`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hetero_client.data.source import ArraySource, ImageSource, Split
from hetero_common.errors import SettingsError

__all__ = ["ArraySource", "ImageSource", "Split", "open_source", "open_validation"]

_BUILTIN = ("cifar10", "cifar100", "stl10")
_FOLDER = "folder:"


def open_source(dataset: str, data_dir: Path, split: Split) -> ImageSource:
    """Open one split of a data set; nothing but what is needed is imported, read or downloaded.

    Args:
        dataset: `cifar10`, `cifar100`, `stl10`, `digits`, or `folder:PATH`.
        data_dir: Where `cifar10`, `cifar100` and `stl10` are kept.
        split: The part to train on, or the one to evaluate on.

    Raises:
        SettingsError: There is no such data set, or it cannot be read.
    """
    if dataset in _BUILTIN:
        from hetero_client.data.builtin import open_builtin  # torchvision takes seconds to import

        return open_builtin(dataset, data_dir, split)
    if dataset == "digits":
        from hetero_client.data.digits import open_digits

        return open_digits(split)
    if dataset.startswith(_FOLDER) and dataset != _FOLDER:
        from hetero_client.data.folder import FolderSource

        return FolderSource(Path(dataset.removeprefix(_FOLDER)).expanduser(), split)
    raise SettingsError(
        f"no data set {dataset!r}: choose one of {', '.join(_BUILTIN)}, digits, folder:PATH"
    )


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
    from hetero_client.data.folder import FolderSource

    path = Path(dataset.removeprefix(_FOLDER)).expanduser()
    return FolderSource(path, "validation", tuple(classes))
