"""`--dataset folder:PATH`: images as `train/<class>/*` and `test/<class>/*`, in a folder or a zip.

There may be `validation/<class>/*` too, which training does not touch.

A zip is read in place, and may wrap everything in one top folder. Hidden files and files that are
no images by their extension are ignored.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from hetero_client.data.images import decode, stack
from hetero_client.data.source import DATASETS, Split
from hetero_common.errors import SettingsError

_AnySplit = Split | Literal["validation"]
_SPLITS = {"train", "test", "validation"}
EXTENSIONS = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".gif", ".tif", ".tiff"))


class _Archive(Protocol):
    """The part of `zipfile.ZipFile` that is used here."""

    def namelist(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...


class _Directory:
    """A folder on disk, seen as an archive."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def namelist(self) -> list[str]:
        return [path.relative_to(self._root).as_posix() for path in self._root.glob("*/*/*")]

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()


class _Member(NamedTuple):
    """An image's class and its name in the archive; sorts by class, then by file."""

    split: str
    class_name: str
    file: str
    name: str


class FolderSource:
    """One split of an image folder or zip; a class's label is its place in the sorted names.

    Args:
        path: The folder or the .zip of one.
        split: Which part is read.
        classes: Its classes; by default those of the train split, whichever split is read.

    Raises:
        SettingsError: The path is missing, no archive, has no images in a split that is needed, or
            the split has a class that is not one of `classes`.
    """

    def __init__(
        self,
        path: Path,
        split: _AnySplit,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        self._path = path
        self._archive = _open_archive(path)
        members = _find_images(self._archive.namelist())
        self.classes = classes or self._trained_on(members)
        selected = self._select(members, split)
        self.labels = self._label(selected, split)
        self._names = [member.name for member in selected]

    def read(self, indices: npt.NDArray[np.int64], image_size: int) -> torch.Tensor:
        """See `ImageSource.read`.

        Raises:
            SettingsError: A file cannot be read; it is named.
        """
        names = (self._names[index] for index in indices)
        images = (decode(self._read_file(name), f"{self._path}/{name}") for name in names)
        return stack(images, len(indices), image_size)

    def _read_file(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            # the last two: encrypted, or compressed in a way that zipfile does not know
            raise SettingsError(f"{self._path}/{name} cannot be read ({error})") from error

    def _trained_on(self, members: list[_Member]) -> tuple[str, ...]:
        return tuple(sorted({member.class_name for member in self._select(members, "train")}))

    def _select(self, members: list[_Member], split: _AnySplit) -> list[_Member]:
        selected = [member for member in members if member.split == split]
        if not selected:
            raise SettingsError(
                f"{self._path} has no images in {split}/<class>/: put them there as "
                f"{split}/<class>/<image> with one of the extensions {' '.join(sorted(EXTENSIONS))}"
            )
        return selected

    def _label(self, members: list[_Member], split: _AnySplit) -> npt.NDArray[np.int64]:
        labels = {name: label for label, name in enumerate(self.classes)}
        unknown = sorted({member.class_name for member in members} - labels.keys())
        if unknown:
            raise SettingsError(
                f"{self._path} has {split} images of {', '.join(unknown)}, but no train images: "
                f"every class of {split}/ must be one that was trained on"
            )
        return np.array([labels[member.class_name] for member in members], dtype=np.int64)


@DATASETS.add("folder:", "images as train/<class>/* and test/<class>/*, in a folder or a .zip")
def open_folder(path: str, data_dir: Path, split: Split) -> FolderSource:
    """Read one split of a folder or zip; see `FolderSource`."""
    return FolderSource(Path(path).expanduser(), split)


def _open_archive(path: Path) -> _Archive:
    if path.is_dir():
        return _Directory(path)
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise SettingsError(
            f"{path} does not exist: give folder:PATH of a folder or zip"
        ) from error
    except (OSError, zipfile.BadZipFile) as error:
        raise SettingsError(f"{path} is neither a folder nor a readable zip ({error})") from error


def _find_images(names: Iterable[str]) -> list[_Member]:
    """Sort the images out of an archive, in the one order that every process sees."""
    paths = [(PurePosixPath(name).parts, name) for name in names if _is_image(name)]
    tops = {parts[0] for parts, _ in paths}
    wrapped = len(tops) == 1 and not tops & _SPLITS
    members = [(parts[wrapped:], name) for parts, name in paths]
    return sorted(_Member(*parts, name) for parts, name in members if len(parts) == 3)


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in EXTENSIONS and not any(p.startswith(".") for p in path.parts)
