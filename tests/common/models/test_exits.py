from __future__ import annotations

import pytest
import torch

from hetero_common.models.exits import EXIT_HEADS, build_exit

KINDS = EXIT_HEADS.names()


each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.parametrize("shape", [(6,), (6, 1, 1), (6, 3, 3), (6, 8, 8), (6, 5, 9)])
def test_every_head_takes_every_activation(kind: str, shape: tuple[int, ...]) -> None:
    logits = build_exit(kind, shape, 7)(torch.randn(4, *shape))
    assert logits.shape == (4, 7)


@pytest.mark.parametrize("kind", ["grid", "conv", "deep"])
def test_the_richer_heads_see_where_something_is(kind: str) -> None:
    torch.manual_seed(0)
    head = build_exit(kind, (8, 8, 8), 3).eval()
    spot, moved = torch.zeros(1, 8, 8, 8), torch.zeros(1, 8, 8, 8)
    spot[0, 0, 1, 1] = moved[0, 0, 6, 1] = 100.0
    linear = build_exit("linear", (8, 8, 8), 3)
    assert torch.allclose(linear(spot), linear(moved))
    if kind == "grid":
        assert not torch.allclose(head(spot), head(moved))
    else:  # it sees patterns of neighbours, wherever they are
        pair, apart = spot.clone(), spot.clone()
        pair[0, 0, 1, 2] = apart[0, 0, 6, 6] = 100.0
        assert torch.allclose(linear(pair), linear(apart))
        assert not torch.allclose(head(pair), head(apart))


@pytest.mark.parametrize(
    ("size", "channels"),
    [
        ((1, 1), [12]),
        ((4, 4), [12]),
        ((8, 8), [12]),
        ((16, 16), [12, 24]),
        ((17, 3), [12, 24, 24]),
        ((32, 32), [12, 24, 24]),
        ((96, 96), [12, 24, 24, 24, 24]),
    ],
)
def test_the_deep_head_halves_what_it_sees_to_4x4(
    size: tuple[int, int], channels: list[int]
) -> None:
    stages = list(build_exit("deep", (6, *size), 7).children())[:-1]
    seen = torch.randn(2, 6, *size)
    for stage, expected in zip(stages, channels, strict=True):
        seen = stage(seen)
        assert seen.shape[1] == expected
    assert max(seen.shape[2:]) <= 4
