from __future__ import annotations

import pytest
import torch

from hetero_common.compute.augmentation import augment


def some_images(count: int, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def reference_crop(image: torch.Tensor, augmented: torch.Tensor) -> list[tuple[int, int, bool]]:
    """Find every (top, left, mirrored) that makes one image of the other."""
    _, height, width = image.shape
    margin = height // 8
    padded = torch.zeros(3, height + 2 * margin, width + 2 * margin, dtype=torch.uint8)
    padded[:, margin : margin + height, margin : margin + width] = image
    return [
        (top, left, mirrored)
        for top in range(2 * margin + 1)
        for left in range(2 * margin + 1)
        for mirrored in (False, True)
        if torch.equal(
            flip(padded[:, top : top + height, left : left + width], mirrored), augmented
        )
    ]


def flip(image: torch.Tensor, mirrored: bool) -> torch.Tensor:
    return image.flip(-1) if mirrored else image


@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("mode", ["crop", "crop-flip"])
def test_each_image_is_one_crop_of_itself(mode: str, size: int) -> None:
    images = some_images(24, size)
    found = [
        reference_crop(image, augmented)
        for image, augmented in zip(images, augment(images, mode, seed=1), strict=True)
    ]
    assert all(len(crops) == 1 for crops in found)
    if mode == "crop":
        assert not any(mirrored for ((_, _, mirrored),) in found)


def test_shifts_and_mirrorings_are_uniform() -> None:
    size, count = 8, 9_000
    images = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    images[:, :, 3, 2] = 1  # stays inside, and is off the mirror's axis
    augmented = augment(images, "crop-flip", seed=0)
    _, rows, columns = augmented[:, 0].nonzero(as_tuple=True)
    assert torch.bincount(rows, minlength=size)[2:5].tolist() == pytest.approx([3000] * 3, rel=0.1)
    expected = [0, 1500, 1500, 1500, 1500, 1500, 1500, 0]
    assert torch.bincount(columns, minlength=size).tolist() == pytest.approx(expected, rel=0.1)


def test_crop_and_crop_flip_shift_alike() -> None:
    images = some_images(16)
    cropped, flipped = augment(images, "crop", 3), augment(images, "crop-flip", 3)
    for one, other in zip(cropped, flipped, strict=True):
        assert torch.equal(one, other) or torch.equal(one.flip(-1), other)


def test_images_too_small_to_shift_stay_in_place() -> None:
    images = some_images(4, size=7)
    assert torch.equal(augment(images, "crop", seed=0), images)


def test_none_changes_nothing() -> None:
    images = some_images(4)
    assert augment(images, "none", seed=0) is images
