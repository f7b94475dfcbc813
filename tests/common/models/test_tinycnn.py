from __future__ import annotations

import pytest

from hetero_common.models.split import activation_shapes
from hetero_common.models.tinycnn import tinycnn


@pytest.mark.parametrize(
    ("stem", "sizes"), [("cifar", [32, 16, 16, 8, 8]), ("imagenet", [16, 8, 4, 2, 2])]
)
def test_five_convolutions_of_one_width_and_a_head(stem: str, sizes: list[int]) -> None:
    model = tinycnn(7, 6, stem)
    assert [name for name, _ in model.named_children()] == [
        *(f"conv{number}" for number in range(1, 6)),
        "head",
    ]
    assert activation_shapes(model, 32) == [*((6, size, size) for size in sizes), (7,)]
