"""`--dataset digits`: 1,797 handwritten digits (8x8, gray), real without a download.

Source: UCI, Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998,
doi:10.24432/C50P49, CC BY 4.0), its test half; pixels and order are those of scikit-learn, which
takes longer to import than the rest of a client.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hetero_client.data.source import DATASETS, ArraySource, Split

_FILE = Path(__file__).with_name("digits.npz")
_BRIGHTEST = 16  # its pixels are 0..16
_TEST_EVERY = 5  # one image in five is for testing


@DATASETS.add("digits", "1,797 handwritten digits of 8x8, which come with the package")
def open_digits(path: str, data_dir: Path, split: Split) -> ArraySource:
    """Read one split: of each class, every fifth image is for testing, whatever the seed."""
    with np.load(_FILE) as digits:
        images, labels = digits["images"], digits["labels"].astype(np.int64)
    pixels = np.rint(images * (255 / _BRIGHTEST)).astype(np.uint8)  # (N, 8, 8)
    classes = np.unique(labels)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in classes:
        is_test[np.flatnonzero(labels == label)[::_TEST_EVERY]] = True
    chosen = is_test if split == "test" else ~is_test
    return ArraySource(tuple(map(str, classes)), labels[chosen], pixels[chosen])
