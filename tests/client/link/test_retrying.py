from __future__ import annotations

import random

import pytest

from hetero_client.link import retrying
from hetero_client.link.retrying import pauses


class Clock:
    """Moves on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retrying, "time", clock)
    return clock


def test_pauses_are_drawn_below_a_bound_that_doubles(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = []

    def lowest(low: float, high: float) -> float:
        bounds.append((low, high))
        return low

    monkeypatch.setattr(random, "uniform", lowest)
    tries = pauses(60)
    assert [next(tries) for _ in range(7)] == [0] * 7
    assert bounds == [(0, high) for high in (1, 2, 4, 8, 16, 20, 20)]


def test_the_last_try_comes_when_the_patience_is_over(clock: Clock) -> None:
    waited = 0.0
    for pause in pauses(30):
        clock.now += pause
        waited += pause
    assert waited == pytest.approx(30)


def test_what_takes_longer_than_the_patience_is_not_tried_again(clock: Clock) -> None:
    tries = pauses(1)
    next(tries)
    clock.now += 1
    assert next(tries, None) is None
