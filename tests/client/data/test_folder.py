"""Images, `folder:` and `digits`; the sets that torchvision reads are in test_data_builtin.py."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from hetero_client.data import ImageSource, Split, open_source, open_validation
from hetero_client.data.images import decode, fit
from hetero_client.data.torchvision_shim import torchvision
from hetero_common.errors import SettingsError
from hetero_common.models.normalization import NORMALIZATIONS

Pixels = npt.NDArray[np.uint8]
Files = dict[str, bytes]
Store = Callable[[Path, Files], Path]


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(pixels: npt.NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def read_all(source: ImageSource, image_size: int) -> torch.Tensor:
    return source.read(np.arange(len(source.labels)), image_size)


def channels_first(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(96, 96), (50, 33), (33, 51), (8, 8), (28, 200)])
def test_fit_resizes_and_crops_as_torchvision_does(size: tuple[int, int]) -> None:
    transforms = torchvision.transforms
    image = Image.fromarray(noise(*size, 3))
    expected = transforms.CenterCrop(32)(transforms.Resize(32)(image))
    assert np.array_equal(np.asarray(fit(image, 32)), np.asarray(expected))


def test_gray_becomes_three_equal_channels() -> None:
    pixels = noise(4, 4)
    decoded = np.asarray(decode(encode(pixels), "gray"))
    assert np.array_equal(decoded, np.repeat(pixels[..., None], 3, axis=2))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    pixels = np.array([[0, 255], [256, 65535]], dtype=np.uint16)
    decoded = np.asarray(decode(encode(pixels), "deep"))
    assert decoded[..., 0].tolist() == [[0, 0], [1, 255]]


def test_a_palette_with_transparency_is_read() -> None:
    stream = io.BytesIO()
    image = Image.fromarray(noise(4, 4, 3)).quantize(4)
    image.save(stream, "PNG", transparency=b"\x10\x80\xff\xff")
    assert decode(stream.getvalue(), "palette").mode == "RGB"


def test_a_photograph_is_turned_upright() -> None:
    pixels = noise(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned left
    decoded = np.asarray(decode(encode(pixels, exif=exif), "photograph"))
    assert np.array_equal(decoded, np.rot90(pixels, -1))


@pytest.mark.parametrize("content", [b"", b"text", encode(noise(9, 9, 3))[:60]])
def test_a_damaged_image_is_named(content: bytes) -> None:
    with pytest.raises(SettingsError, match=r"cat.png cannot be read as an image"):
        decode(content, "cat.png")


def test_pixels_without_a_known_range_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"x.tif cannot be .*no known range"):
        decode(encode(np.zeros((2, 2), dtype=np.float32), "TIFF"), "x.tif")


# --- folder: --------------------------------------------------------------------------------------


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


# --- digits ---------------------------------------------------------------------------------------


def open_digits(split: Split) -> ImageSource:
    return open_source("digits", Path("unused"), split)


def test_digits_are_split_in_each_class_alike() -> None:
    train, test = open_digits("train"), open_digits("test")
    assert train.classes == test.classes == tuple("0123456789")
    assert (len(train.labels), len(test.labels)) == (1433, 364)
    fractions = np.bincount(test.labels) / np.bincount(np.r_[train.labels, test.labels])
    assert fractions == pytest.approx([0.2] * 10, abs=0.01)


def test_digits_are_all_there_once_and_use_the_whole_range() -> None:
    """Of their 1,797 images no two are alike; the digest is of scikit-learn 1.9's `load_digits`."""
    sources = [open_digits(split) for split in ("train", "test")]
    pixels = torch.cat([read_all(source, 8) for source in sources])
    labels = np.concatenate([source.labels for source in sources])
    original = (image[0] / 255 * 16 for image in pixels)
    rows = sorted(
        image.round().byte().numpy().tobytes() + bytes([label])
        for image, label in zip(original, labels, strict=True)
    )
    assert len({row[:-1] for row in rows}) == 1797
    assert (
        hashlib.sha256(b"".join(rows)).hexdigest()
        == "f67d6a29d0e1f70e7f0cd9dcf25816b694881f4b8f27f5cc1db59551f0499fb8"
    )
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)


def test_digits_are_normalized_by_their_own_statistics() -> None:
    normalized = NORMALIZATIONS["digits"].apply(read_all(open_digits("train"), 32))
    assert normalized.mean().item() == pytest.approx(0, abs=1e-3)
    assert normalized.std().item() == pytest.approx(1, abs=1e-3)


# --- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["mnist", "", "folder:", "CIFAR10"])
def test_unknown_sets_name_the_choices(dataset: str) -> None:
    choices = r"choose one of cifar10, cifar100, stl10, digits, folder:PATH or your own"
    with pytest.raises(SettingsError, match=choices):
        open_source(dataset, Path("unused"), "train")


def test_torchvision_is_imported_only_where_needed() -> None:
    code = (
        "import pathlib, sys; from hetero_client.data import open_source; "
        "open_source('digits', pathlib.Path(), 'train'); sys.exit('torchvision' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
