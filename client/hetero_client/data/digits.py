"""`--dataset digits`: scikit-learn's 1,797 handwritten digits (8x8, gray), real without a download.

Source: UCI, Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), its test half.
"""

from __future__ import annotations

import numpy as np

from hetero_client.data.source import ArraySource, Split
from hetero_common.errors import SettingsError

_BRIGHTEST = 16  # scikit-learn's pixels are 0..16
_TEST_EVERY = 5  # one image in five is for testing


def open_digits(split: Split) -> ArraySource:
    """Read one split: of each class, every fifth image is for testing, whatever the seed.

    Raises:
        SettingsError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise SettingsError(
            "the digits come with scikit-learn: pip install hetero-splitee[digits]"
        ) from error
    digits = load_digits()
    labels = digits.target.astype(np.int64)
    pixels = np.rint(digits.images * (255 / _BRIGHTEST)).astype(np.uint8)  # (N, 8, 8)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        is_test[np.flatnonzero(labels == label)[::_TEST_EVERY]] = True
    chosen = is_test if split == "test" else ~is_test
    return ArraySource(tuple(map(str, digits.target_names)), labels[chosen], pixels[chosen])
