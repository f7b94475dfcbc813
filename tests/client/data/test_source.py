from __future__ import annotations

import numpy as np
import torch

from hetero_client.data.source import ArraySource
from support.pictures import Pixels, channels_first, noise, read_all


def source_of(pixels: Pixels) -> ArraySource:
    return ArraySource(("cat", "dog"), np.arange(len(pixels)) % 2, pixels)


def test_images_come_in_the_order_asked_for_as_often_as_asked_for() -> None:
    pixels = noise(3, 8, 8, 3)
    found = source_of(pixels).read(np.array([2, 0, 2]), 8)
    assert torch.equal(found, channels_first(pixels[[2, 0, 2]]))


def test_gray_images_have_three_equal_channels() -> None:
    pixels = noise(2, 8, 8)
    expected = channels_first(np.repeat(pixels[..., None], 3, axis=3))
    assert torch.equal(read_all(source_of(pixels), 8), expected)


def test_images_are_resized_to_what_is_asked_for() -> None:
    assert read_all(source_of(noise(2, 12, 9, 3)), 6).shape == (2, 3, 6, 6)


def test_nothing_may_be_asked_for() -> None:
    found = source_of(noise(2, 8, 8, 3)).read(np.array([], dtype=np.int64), 8)
    assert (found.shape, found.dtype) == ((0, 3, 8, 8), torch.uint8)
