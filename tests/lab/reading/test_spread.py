from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero_lab.reading.spread import Spread, mean


def test_a_single_value_has_no_deviation() -> None:
    assert Spread.of([0.5]) == Spread(0.5, None, 1)


def test_what_is_not_there_does_not_count() -> None:
    assert Spread.of([None, 1.0, None, 3.0]) == Spread(2.0, 2**0.5, 2)
    assert mean([None, 1.0, None, 3.0]) == 2.0


def test_nothing_has_no_mean() -> None:
    assert Spread.of([None, None]) is None
    assert Spread.of([]) is None
    assert mean([None]) is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_the_deviation_is_that_of_a_sample(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread is not None
    assert spread.count == len(values)
    assert spread.mean == pytest.approx(statistics.fmean(values))
    centered = sum((value - statistics.fmean(values)) ** 2 for value in values)
    expected = (centered / (len(values) - 1)) ** 0.5
    assert spread.deviation == pytest.approx(expected, rel=1e-6, abs=1e-6)
