from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from hetero_client.data import ImageSource, Split, open_source
from hetero_common.models.normalization import NORMALIZATIONS
from support.pictures import read_all


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
