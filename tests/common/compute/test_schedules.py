from __future__ import annotations

import math

import pytest

from hetero_common.compute.schedules import SCHEDULES, StepAt


def test_progress_counts_rounds_and_steps_within_them() -> None:
    assert StepAt(0, 0, 4).progress(10) == 0.0
    assert StepAt(3, 2, 4).progress(10) == pytest.approx(0.35)
    assert StepAt(9, 3, 4).progress(10) < 1.0


def test_a_constant_rate_stays() -> None:
    assert {SCHEDULES["constant"](step / 10) for step in range(10)} == {1.0}


def test_a_cosine_falls_from_one_to_zero_and_is_half_in_the_middle() -> None:
    factors = [SCHEDULES["cosine"](step / 100) for step in range(100)]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == 1.0
    assert factors[50] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(0.5 * (1 + math.cos(0.99 * math.pi)))
