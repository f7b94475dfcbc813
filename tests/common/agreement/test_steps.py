from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero_common.agreement.steps import steps_from_text, steps_to_text


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([], ""),
        ([0], "0"),
        ([0, 1], "0-1"),
        ([*range(8)], "0-7"),
        ([0, 1, 2, 5, 5], "0-2,5,5"),
        ([3, 2, 1], "3,2,1"),
    ],
)
def test_successive_steps_are_shortened(steps: list[int], text: str) -> None:
    assert steps_to_text(steps) == text


@given(st.lists(st.integers(0, 9)))
def test_steps_come_back_as_they_were(steps: list[int]) -> None:
    assert steps_from_text(steps_to_text(steps)) == steps


@pytest.mark.parametrize("text", [",", "0-", "-1", "a", "0-1,", "0 - 1", "0-1-2", "1" * 8])
def test_what_names_no_steps_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no steps"):
        steps_from_text(text)
