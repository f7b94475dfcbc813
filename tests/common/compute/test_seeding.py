from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hetero_common.compute.seeding import derive_seed, permutation, seed_step, seeded


def draw() -> list[float]:
    drawn: list[float] = torch.rand(3).tolist()
    return drawn


def test_a_seeded_block_draws_by_its_scope_and_leaves_the_generator_as_it_was() -> None:
    torch.manual_seed(5)
    expected = draw()
    torch.manual_seed(5)
    drawn = []
    for scope in [(0, "model"), (0, "model"), (1, "model"), (0, "heads")]:
        with seeded(*scope):
            drawn.append(draw())
    assert draw() == expected
    assert drawn[0] == drawn[1]
    assert len({tuple(numbers) for numbers in drawn}) == 3


def test_the_generator_comes_back_after_an_error() -> None:
    torch.manual_seed(5)
    expected = draw()
    torch.manual_seed(5)
    with pytest.raises(ZeroDivisionError), seeded(0, "model"):
        draw()
        raise ZeroDivisionError
    assert draw() == expected


@pytest.mark.parametrize("other", [(1, "a", 2), (0, "b", 2), (0, "a", 3), (0, "a"), (0, "a2")])
def test_a_seeded_step_is_a_function_of_its_whole_scope(other: tuple[int, object]) -> None:
    seed_step(0, "a", 2)
    drawn = draw()
    draw()
    seed_step(0, "a", 2)
    assert draw() == drawn
    seed_step(*other)
    assert draw() != drawn


@given(st.lists(st.integers() | st.text(st.characters(exclude_categories=["Cs"]))))
def test_a_derived_seed_has_63_bits(parts: list[int | str]) -> None:
    assert 0 <= derive_seed(*parts) < 2**63


def test_a_derived_seed_tells_its_parts_apart() -> None:
    parts = [("a", "b"), ("ab",), ("b", "a"), ("a", "b", ""), ("a:1:b",), ("a", 1), ("a", 11)]
    assert len({derive_seed(*each) for each in parts}) == len(parts)


def test_a_derived_seed_is_the_same_for_ever() -> None:
    assert derive_seed("epoch", 0, "client-1", 3) == 4440703984812931281


@given(st.integers(0, 300), st.integers(0, 2**63 - 1))
def test_a_permutation_holds_everything_once(size: int, seed: int) -> None:
    assert sorted(permutation(size, seed).tolist()) == list(range(size))
