from __future__ import annotations

from hetero_common.records.cadence import Cadence


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_is_due_when_the_last_time_is_long_enough_ago() -> None:
    clock = Clock()
    cadence = Cadence(10.0, clock)
    assert not cadence.is_due
    clock.now += 9.9
    assert not cadence.is_due
    clock.now += 0.1
    assert cadence.is_due
    assert cadence.is_due, "until somebody begins anew"
    cadence.begin()
    assert not cadence.is_due


def test_without_a_pause_it_is_always_due() -> None:
    assert Cadence(0.0).is_due
