"""cifar10, cifar100 and stl10, from small files in their exact formats."""

from __future__ import annotations

import fcntl
import hashlib
import io
import pickle
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hetero_client.data import open_source
from hetero_client.data.images import fit
from hetero_client.data.torchvision_sets import LabeledSTL10
from hetero_client.data.torchvision_shim import torchvision
from hetero_common.errors import SettingsError
from support.pictures import Files, Pixels, channels_first, noise, read_all

CIFAR10 = torchvision.datasets.CIFAR10


def pickled(**content: Any) -> bytes:
    return pickle.dumps(content, protocol=2)


def cifar10_files(pixels: Pixels) -> Files:
    """Two images per batch, as Krizhevsky stores them: one row of 3,072 bytes each, by channel."""
    rows = pixels.transpose(0, 3, 1, 2).reshape(6, 2, 3072)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    files = {
        name: pickled(data=data, labels=[index, 9 - index])
        for index, (name, data) in enumerate(zip(names, rows, strict=True))
    }
    return {**files, "batches.meta": pickled(label_names=list("abcdefghij"))}


def cifar100_files(pixels: Pixels) -> Files:
    rows = pixels.transpose(0, 3, 1, 2).reshape(-1, 3072)
    return {
        "train": pickled(data=rows[:2], fine_labels=[3, 99], coarse_labels=[0, 1]),
        "test": pickled(data=rows[2:], fine_labels=[42], coarse_labels=[2]),
        "meta": pickled(fine_label_names=[f"class {label}" for label in range(100)]),
    }


def stl10_files(pixels: Pixels) -> Files:
    """Column-major, so that a reader that expects rows sees each channel transposed."""
    columns = pixels.transpose(0, 3, 2, 1)
    return {
        "train_X.bin": columns[:3].tobytes(),
        "train_y.bin": bytes([1, 10, 4]),
        "test_X.bin": columns[3:].tobytes(),
        "test_y.bin": bytes([7, 2]),
        "class_names.txt": b"airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n",
        "fold_indices.txt": b"0 1 2\n" * 10,
    }


def expect_checksums(monkeypatch: pytest.MonkeyPatch, reader: Any, files: Files) -> None:
    """Make torchvision take these files for the official ones."""
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    for attribute in ("train_list", "test_list"):
        listed = [[name, md5[name]] for name, _ in getattr(reader, attribute)]
        monkeypatch.setattr(reader, attribute, listed)
    if hasattr(reader, "meta"):
        meta = {**reader.meta, "md5": md5[reader.meta["filename"]]}
        monkeypatch.setattr(reader, "meta", meta)


def install(monkeypatch: pytest.MonkeyPatch, reader: Any, files: Files, data_dir: Path) -> None:
    expect_checksums(monkeypatch, reader, files)
    folder = data_dir / reader.base_folder
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_cifar10_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pixels = noise(12, 32, 32, 3)
    install(monkeypatch, CIFAR10, cifar10_files(pixels), tmp_path)
    train, test = (open_source("cifar10", tmp_path, split) for split in ("train", "test"))
    assert train.classes == test.classes == tuple("abcdefghij")
    assert train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert test.labels.tolist() == [5, 4]
    assert torch.equal(read_all(train, 32), channels_first(pixels[:10]))
    assert torch.equal(test.read(np.array([1]), 32), channels_first(pixels[11:]))


def test_cifar100_is_read_with_its_fine_labels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pixels = noise(3, 32, 32, 3)
    install(monkeypatch, torchvision.datasets.CIFAR100, cifar100_files(pixels), tmp_path)
    train, test = (open_source("cifar100", tmp_path, split) for split in ("train", "test"))
    assert train.classes[42] == "class 42"
    assert (train.labels.tolist(), test.labels.tolist()) == ([3, 99], [42])
    assert torch.equal(read_all(train, 32), channels_first(pixels[:2]))
    assert torch.equal(read_all(test, 32), channels_first(pixels[2:]))


def test_stl10_is_read_without_its_unlabeled_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pixels = noise(5, 96, 96, 3)
    install(monkeypatch, LabeledSTL10, stl10_files(pixels), tmp_path)
    train, test = (open_source("stl10", tmp_path, split) for split in ("train", "test"))
    assert train.classes == test.classes
    assert (train.classes[0], train.classes[9]) == ("airplane", "truck")
    assert train.labels.dtype == np.int64
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 9, 3], [6, 1])
    assert torch.equal(read_all(train, 96), channels_first(pixels[:3]))
    assert torch.equal(read_all(test, 96), channels_first(pixels[3:]))
    shrunk = [np.asarray(fit(Image.fromarray(image), 32)) for image in pixels[:3]]
    assert torch.equal(read_all(train, 32), channels_first(np.stack(shrunk)))


def pack(reader: Any, files: Files) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{reader.base_folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", fail)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("dataset", "archive"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("stl10", "stl10_binary.tar.gz"),
    ],
)
def test_offline_says_where_to_put_which_archive(
    dataset: str, archive: str, tmp_path: Path
) -> None:
    data_dir = tmp_path / "not yet"
    with pytest.raises(SettingsError) as error:
        open_source(dataset, data_dir, "train")
    assert str(error.value) == (
        f"{dataset} is not in {data_dir} and could not be downloaded "
        f"(<urlopen error no route to host>): put {archive} there, or use --dataset digits"
    )


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "test_batch",
            r"^cifar10 is damaged in .* could not be .*: put cifar-10-python.tar.gz there",
        ),
        (
            "batches.meta",
            r"^cifar10 in .* is damaged: delete cifar-10-python.tar.gz and cifar-10-b",
        ),
    ],
)
def test_damaged_files_are_recognized(
    name: str, sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, CIFAR10, cifar10_files(noise(12, 32, 32, 3)), tmp_path)
    (tmp_path / CIFAR10.base_folder / name).write_bytes(b"damaged")
    with pytest.raises(SettingsError, match=sentence):
        open_source("cifar10", tmp_path, "train")


@pytest.mark.usefixtures("offline")
def test_stl10_without_its_class_names_is_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, LabeledSTL10, stl10_files(noise(5, 96, 96, 3)), tmp_path)
    (tmp_path / LabeledSTL10.base_folder / "class_names.txt").unlink()
    with pytest.raises(SettingsError, match=r"^stl10 is damaged in"):
        open_source("stl10", tmp_path, "train")


# Python 3.12 and 3.13 announce the `data` filter of 3.14, which torchvision does not yet ask for.
@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")
@pytest.mark.usefixtures("offline")
def test_an_archive_put_there_is_unpacked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = stl10_files(noise(5, 96, 96, 3))
    expect_checksums(monkeypatch, LabeledSTL10, files)
    archive = pack(LabeledSTL10, files)
    monkeypatch.setattr(LabeledSTL10, "tgz_md5", hashlib.md5(archive).hexdigest())
    (tmp_path / LabeledSTL10.filename).write_bytes(archive)
    assert open_source("stl10", tmp_path, "test").labels.tolist() == [6, 1]


@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")
@pytest.mark.usefixtures("offline")
def test_an_archive_of_other_files_is_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive = pack(CIFAR10, {"test_batch": b"something else"})
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive).hexdigest())
    (tmp_path / CIFAR10.filename).write_bytes(archive)
    with pytest.raises(
        SettingsError,
        match=r"is damaged: delete cifar-10-python.tar.gz and cifar-10-batches-py there",
    ):
        open_source("cifar10", tmp_path, "train")


def test_one_process_downloads_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def download(reader: Any) -> None:
        with Path(reader.root, ".download.lock").open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise ConnectionResetError("the lock was held")

    monkeypatch.setattr(CIFAR10, "download", download)
    with pytest.raises(SettingsError, match="the lock was held"):
        open_source("cifar10", tmp_path, "train")
