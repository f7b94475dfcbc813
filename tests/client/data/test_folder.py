"""Image folders and archives of them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hetero_client.data import ImageSource, Split, open_source, open_validation
from hetero_common.errors import SettingsError
from hetero_common.models.normalization import NORMALIZATIONS
from support.pictures import Files, channels_first, encode, noise, read_all

Store = Callable[[Path, Files], Path]


def write_folder(root: Path, files: Files) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(root: Path, files: Files) -> Path:
    path = root / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_wrapped_zip(root: Path, files: Files) -> Path:
    return write_zip(root, {f"my images/{name}": content for name, content in files.items()})


stores = pytest.mark.parametrize("store", [write_folder, write_zip, write_wrapped_zip])


def open_folder(path: Path, split: Split = "train") -> ImageSource:
    return open_source(f"folder:{path}", Path("unused"), split)


@stores
def test_a_folder_is_read_sorted_by_class_and_file(store: Store, tmp_path: Path) -> None:
    pixels = noise(5, 6, 6, 3)
    files = {
        "train/dog/b.PNG": encode(pixels[3]),
        "train/cat/2.webp": encode(pixels[1], "WEBP", lossless=True),
        "train/cat/1.bmp": encode(pixels[0], "BMP"),
        "train/dog/a.tiff": encode(pixels[2], "TIFF"),
        "test/dog/x.png": encode(pixels[4]),
        "train/dog/notes.txt": b"no image",
        "train/dog/.hidden.png": b"no image",
        "train/.cache/x.png": b"no image",
        "train/stray.png": b"belongs to no class",
    }
    path = store(tmp_path, files)
    train, test = open_folder(path), open_folder(path, "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.dtype == np.int64
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert test.labels.tolist() == [1]
    assert torch.equal(read_all(train, 6), channels_first(pixels[:4]))
    assert torch.equal(read_all(test, 6), channels_first(pixels[4:]))
    assert torch.equal(train.read(np.array([3, 0]), 6), channels_first(pixels[[3, 0]]))


def test_files_that_macos_adds_to_a_zip_are_ignored(tmp_path: Path) -> None:
    files = {"photos/train/cat/1.png": encode(noise(4, 4)), "__MACOSX/photos/._1.png": b"no image"}
    assert open_folder(write_zip(tmp_path, files)).classes == ("cat",)


@stores
def test_only_what_is_asked_is_decoded(store: Store, tmp_path: Path) -> None:
    files = {"train/cat/1.png": encode(noise(4, 4)), "train/cat/2.png": b"damaged"}
    source = open_folder(store(tmp_path, files))
    assert source.read(np.array([0]), 8).shape == (1, 3, 8, 8)
    assert source.read(np.array([], dtype=np.int64), 8).shape == (0, 3, 8, 8)
    with pytest.raises(SettingsError, match=r"train/cat/2.png cannot be read as an image"):
        source.read(np.array([1]), 8)


def test_a_damaged_part_of_a_zip_is_named(tmp_path: Path) -> None:
    content = encode(noise(4, 4))
    path = write_zip(tmp_path, {"train/cat/1.png": content})
    path.write_bytes(path.read_bytes().replace(content, bytes(len(content))))
    with pytest.raises(SettingsError, match=r"train/cat/1.png cannot be read \(Bad CRC"):
        read_all(open_folder(path), 4)


@stores
@pytest.mark.parametrize("present", ["train", "test"])
def test_both_splits_must_have_images(store: Store, present: str, tmp_path: Path) -> None:
    path = store(tmp_path, {f"{present}/cat/1.png": encode(noise(4, 4))})
    missing = "test" if present == "train" else "train"
    with pytest.raises(SettingsError, match=f"has no images in {missing}/<class>/: put them"):
        open_folder(path, "test")


def test_the_test_split_may_not_add_a_class(tmp_path: Path) -> None:
    image = encode(noise(4, 4))
    path = write_folder(tmp_path, {"train/cat/1.png": image, "test/emu/1.png": image})
    with pytest.raises(SettingsError, match="has test images of emu, but no train images"):
        open_folder(path, "test")


@stores
@pytest.mark.parametrize("alone", [True, False])
def test_a_validation_split_has_the_classes_of_the_device(
    store: Store, alone: bool, tmp_path: Path
) -> None:
    """In their order, whether or not there are others or all of them in the folder."""
    pixels = noise(3, 6, 6, 3)
    files = {
        "validation/dog/1.png": encode(pixels[1]),
        "validation/cat/1.png": encode(pixels[0]),
    }
    if not alone:
        files |= {f"{split}/emu/1.png": encode(pixels[2]) for split in ("train", "test")}
    source = open_validation(f"folder:{store(tmp_path, files)}", ["dog", "emu", "cat"])
    assert source.classes == ("dog", "emu", "cat")
    assert source.labels.tolist() == [2, 0]
    assert torch.equal(read_all(source, 6), channels_first(pixels[:2]))


def test_a_validation_split_is_not_trained_or_tested_on(tmp_path: Path) -> None:
    image = encode(noise(4, 4))
    files = {f"{split}/cat/1.png": image for split in ("train", "test")}
    path = write_folder(tmp_path, files | {"validation/emu/1.png": image})
    for split in ("train", "test"):
        source = open_source(f"folder:{path}", Path("unused"), split)
        assert (source.classes, source.labels.tolist()) == (("cat",), [0])


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ("digits", r"^digits is not for choosing a threshold: leave --dataset out to take the "),
        ("folder:", r"^folder: is not for choosing a threshold: "),
        ("folder:{path}", r"has validation images of emu, but no train images: every class of val"),
        ("folder:{path}/train", r"/train has no images in validation/<class>/: put them there as "),
        ("folder:{path}/nowhere", r"/nowhere does not exist: give folder:PATH"),
    ],
)
def test_what_can_not_be_chosen_with_is_named(dataset: str, sentence: str, tmp_path: Path) -> None:
    path = write_folder(
        tmp_path, {f"{name}/1.png": encode(noise(4, 4)) for name in ("train/cat", "validation/emu")}
    )
    with pytest.raises(SettingsError, match=sentence):
        open_validation(dataset.format(path=path), ["cat", "dog"])


def test_a_path_must_be_a_folder_or_a_zip(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere does not exist"):
        open_folder(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no zip")
    with pytest.raises(SettingsError, match=r"notes.txt is neither a folder nor a readable zip"):
        open_folder(tmp_path / "notes.txt")


REAL_ZIP = Path(os.environ.get("HETERO_TEST_CIFAR10_ZIP", "/nonexistent"))


@pytest.mark.skipif(not REAL_ZIP.exists(), reason="HETERO_TEST_CIFAR10_ZIP names no file")
def test_the_real_cifar10_has_its_known_statistics() -> None:
    source = open_folder(REAL_ZIP)
    assert source.classes[0] == "airplane"
    assert np.bincount(source.labels).tolist() == [5_000] * 10
    normalized = NORMALIZATIONS["cifar10"].apply(source.read(np.arange(0, 50_000, 10), 32))
    assert normalized.mean((0, 2, 3)).abs().max() < 0.05
    assert (normalized.std((0, 2, 3)) - 1).abs().max() < 0.05
