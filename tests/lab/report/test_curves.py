"""What offloading gives, against images that are offloaded one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hetero_client.exits.rule import Answers
from hetero_common.agreement.control import OperatingPoint
from hetero_lab.reading.run import Curve
from hetero_lab.report.curves import Offloading
from support.sample_runs import CURVE

images = st.lists(
    st.tuples(st.floats(0, 1, width=32), st.booleans(), st.booleans()), min_size=2, max_size=30
)


def answers_of(rows: list[tuple[float, bool, bool]]) -> Answers:
    entropy, exit_right, server_right = (list(column) for column in zip(*rows, strict=True))
    return Answers(torch.tensor(entropy), torch.tensor(exit_right), torch.tensor(server_right))


def curve_of(answers: Answers) -> Curve:
    points = sorted(answers.curve(), key=lambda point: point.threshold)
    return Curve(tuple(points), answers.only_server_right)


@given(images)
def test_the_oracle_is_the_best_choice_of_images(rows: list[tuple[float, bool, bool]]) -> None:
    offloading = Offloading.of([curve_of(answers_of(rows))])
    gains = sorted((int(server) - int(exit_) for _, exit_, server in rows), reverse=True)
    right = sum(exit_ for _, exit_, _ in rows)
    for count in range(len(rows) + 1):
        best = (right + sum(gains[:count])) / len(rows)
        assert offloading.by_oracle(count / len(rows)) == pytest.approx(best, abs=1e-9)


@given(images)
def test_all_three_lead_from_the_exit_to_the_server(rows: list[tuple[float, bool, bool]]) -> None:
    answers = answers_of(rows)
    offloading = Offloading.of([curve_of(answers)])
    for gives in (offloading.by_uncertainty, offloading.at_random, offloading.by_oracle):
        assert gives(0.0) == pytest.approx(answers.exit_accuracy)
        assert gives(1.0) == pytest.approx(answers.server_accuracy)


@given(images)
def test_nothing_beats_the_oracle(rows: list[tuple[float, bool, bool]]) -> None:
    offloading = Offloading.of([curve_of(answers_of(rows))])
    for share in np.linspace(0, 1, 21):
        best = offloading.by_oracle(share) + 1e-9
        assert offloading.by_uncertainty(share) <= best and offloading.at_random(share) <= best


def test_the_curve_goes_through_the_points_that_were_told() -> None:
    answers = answers_of([(i / 40, i % 3 > 0, i % 4 > 0) for i in range(40)])
    offloading = Offloading.of([curve_of(answers)])
    for point in answers.curve():
        assert offloading.by_uncertainty(point.offload_share) == pytest.approx(point.accuracy)


def test_clients_are_put_together_at_the_same_threshold() -> None:
    """Not at the same share: one of them offloads nothing where the other one offloads all."""
    sure = [
        OperatingPoint(-1.0, 0.5, 1.0),
        OperatingPoint(0.1, 0.9, 0.0),
        OperatingPoint(1, 0.9, 0),
    ]
    unsure = [
        OperatingPoint(-1.0, 0.8, 1.0),
        OperatingPoint(0.9, 0.8, 1),
        OperatingPoint(1, 0.2, 0),
    ]
    both = Offloading.of([Curve(tuple(sure), 0.1), Curve(tuple(unsure), 0.7)])
    assert both.by_uncertainty(0.5) == pytest.approx((0.9 + 0.8) / 2)
    assert [both.exit, both.server] == pytest.approx([0.55, 0.65])
    assert both.by_oracle(0.4) == pytest.approx(0.55 + 0.4)
    assert both.at_random(0.5) == pytest.approx(0.6)


def test_equal_curves_are_one() -> None:
    once, twice = Offloading.of([CURVE]), Offloading.of([CURVE, CURVE])
    for share in (0.0, 0.3, 0.5, 1.0):
        assert twice.by_uncertainty(share) == pytest.approx(once.by_uncertainty(share))
        assert twice.by_oracle(share) == pytest.approx(once.by_oracle(share))


def test_a_curve_that_no_images_give_does_no_harm() -> None:
    """Clients tell their curves; one may tell anything."""
    points = (OperatingPoint(-1.0, 0.1, 0.2), OperatingPoint(-0.5, 0.9, 0.9))
    offloading = Offloading.of([Curve((*points, OperatingPoint(2.0, 0.5, 0.1)), 1.0)])
    for gives in (offloading.by_uncertainty, offloading.at_random, offloading.by_oracle):
        assert np.isfinite([gives(share) for share in np.linspace(0, 1, 21)]).all()
