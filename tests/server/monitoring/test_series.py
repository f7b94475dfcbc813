"""Curves: means over clients by round, in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero_server.monitoring.series import Series


def test_a_point_is_the_mean_over_all_clients_and_over_those_of_each_cut_layer() -> None:
    series = Series(("loss",))
    series.add(0, 3, {"loss": 1.0, "else": 7.0})
    series.add(0, 3, {"loss": 2.0})
    series.add(0, 5, {"loss": 6.0})
    assert series.points() == [
        {"round": 0, "all": {"loss": 3.0}, "cuts": {3: {"loss": 1.5}, 5: {"loss": 6.0}}}
    ]


def test_what_a_client_does_not_tell_does_not_count() -> None:
    series = Series(("loss", "accuracy"))
    series.add(0, 3, {"loss": None, "accuracy": 0.5})
    series.add(0, 3, {"loss": 4.0})
    assert series.points()[0]["all"] == {"accuracy": 0.5, "loss": 4.0}


def test_rounds_that_have_not_happened_are_forgotten() -> None:
    series = Series(("loss",))
    for round_ in range(4):
        series.add(round_, 3, {"loss": float(round_)})
    series.forget_after(1)
    assert [point["round"] for point in series.points()] == [0, 1]


@given(st.integers(2, 9), st.lists(st.integers(1, 3), max_size=200))
def test_memory_is_bounded_and_the_newest_round_is_always_there(
    most: int, strides: list[int]
) -> None:
    series, round_ = Series(("loss",), most), 0
    for stride in strides:
        round_ += stride
        series.add(round_, 3, {"loss": float(round_)})
        points = series.points()
        assert len(points) <= most
        assert points[-1]["round"] == round_
        assert series.newest() == points[-1]
        assert all(point["all"]["loss"] == point["round"] for point in points)


def test_thinned_curves_still_reach_from_the_first_to_the_last_round() -> None:
    series = Series(("loss",), most=10)
    for round_ in range(1000):
        series.add(round_, 3, {"loss": 0.0})
    rounds = [point["round"] for point in series.points()]
    assert rounds[0] == 0
    assert rounds[-1] == 999
    assert rounds == sorted(set(rounds))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_points_come_by_round(order: tuple[int, ...]) -> None:
    series = Series(("loss",))
    for round_ in order:
        series.add(round_, 3, {"loss": 0.0})
    assert [point["round"] for point in series.points()] == [0, 1, 2]
