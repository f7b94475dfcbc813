from __future__ import annotations

import pytest

from hetero_common.models.split import activation_shapes
from hetero_common.models.vgg import vgg11_bn


def test_each_convolution_is_a_layer() -> None:
    names = [name for name, _ in vgg11_bn(10, 4, "cifar").named_children()]
    assert names == [*(f"conv{number}" for number in range(1, 9)), "head"]


def test_five_pools_halve_the_image_and_channels_double_up_to_eight_times_the_width() -> None:
    assert activation_shapes(vgg11_bn(7, 4, "cifar"), 32) == [
        *((4, 16, 16), (8, 8, 8), (16, 8, 8), (16, 4, 4)),
        *((32, 4, 4), (32, 2, 2), (32, 2, 2), (32, 1, 1)),
        (7,),
    ]


@pytest.mark.parametrize("size", [4, 17, 31])
def test_a_pixel_is_left_of_small_images(size: int) -> None:
    assert activation_shapes(vgg11_bn(10, 4, "cifar"), size)[-2] == (32, 1, 1)
