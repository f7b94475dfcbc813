from __future__ import annotations

import pytest

from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.run.tally import Tally

FIRST = StepOutcome(2.0, 3, gradient_norm=1.0, activation_peak=5.0)
SECOND = StepOutcome(1.0, 1, gradient_norm=4.0, activation_peak=2.0)


def test_a_round_is_recorded_by_means_and_maxima() -> None:
    tally = Tally(outliers=1)
    tally.add(FIRST, rows=6)
    tally.add(SECOND, rows=2)
    assert tally.record() == {
        "samples": 8,
        "server_loss": pytest.approx((2.0 * 6 + 1.0 * 2) / 8),
        "server_train_accuracy": 4 / 8,
        "gradient_norm": 2.5,
        "gradient_norm_max": 4.0,
        "activation_peak": 3.5,
        "activation_peak_max": 5.0,
        "outliers": 1,
    }
    assert tally.steps == 2


def test_a_round_without_a_step_is_recorded_as_nothing() -> None:
    assert set(Tally().record().values()) == {0}
