from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from hetero_client.data.images import decode, fit, stack
from hetero_client.data.torchvision_shim import torchvision
from hetero_common.errors import SettingsError
from support.pictures import channels_first, encode, noise


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


def test_images_are_fitted_into_one_tensor() -> None:
    images = [Image.fromarray(noise(8, 8, 3)), Image.fromarray(noise(20, 16, 3, seed=1))]
    stacked = stack(iter(images), 2, 8)
    assert (stacked.shape, stacked.dtype) == ((2, 3, 8, 8), torch.uint8)
    assert torch.equal(
        stacked, channels_first(np.stack([np.asarray(fit(image, 8)) for image in images]))
    )


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_images_is_a_mistake(count: int) -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        stack(iter([Image.fromarray(noise(8, 8, 3))] * 2), count, 8)
