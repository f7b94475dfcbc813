from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hetero_client.exits.reliability import auroc, calibration_error

# On a coarse grid, so that ties are common.
answers = st.lists(
    st.tuples(st.integers(0, 6).map(lambda sixths: sixths / 6), st.booleans()),
    min_size=1,
    max_size=40,
)
Rows = list[tuple[float, bool]]
"""Confidence, and whether the answer is right."""


def columns(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    confidence, right = zip(*rows, strict=True)
    return torch.tensor(confidence), torch.tensor(right)


# --- AUROC ----------------------------------------------------------------------------------------


@given(answers)
def test_auroc_counts_pairs_of_a_right_and_a_wrong_answer(rows: Rows) -> None:
    of_right = [confidence for confidence, right in rows if right]
    of_wrong = [confidence for confidence, right in rows if not right]
    pairs = [(right, wrong) for right in of_right for wrong in of_wrong]
    won = sum(1.0 if right > wrong else 0.5 * (right == wrong) for right, wrong in pairs)
    assert auroc(*columns(rows)) == (won / len(pairs) if pairs else None)


@given(answers)
def test_auroc_of_what_is_reversed_is_the_rest_of_1(rows: Rows) -> None:
    confidence, right = columns(rows)
    there, back = auroc(confidence, right), auroc(-confidence, right)
    if there is not None and back is not None:
        assert there + back == pytest.approx(1.0, abs=1e-15)


def test_auroc_of_a_perfect_ranking_is_1_and_of_equal_confidences_a_half() -> None:
    right = torch.tensor([True, True, False, False, False])
    assert auroc(torch.tensor([0.9, 0.8, 0.7, 0.2, 0.1]), right) == 1.0
    assert auroc(torch.tensor([0.1, 0.2, 0.7, 0.8, 0.9]), right) == 0.0
    assert auroc(torch.full((5,), 0.5), right) == 0.5


def test_auroc_of_noise_is_about_a_half() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence, coin = torch.rand(2, 20_000, generator=generator)
    assert auroc(confidence, coin < 0.7) == pytest.approx(0.5, abs=0.015)  # 3.5 deviations


# --- calibration error ----------------------------------------------------------------------------


@given(answers, st.integers(1, 20))
def test_a_calibration_error_is_the_mean_gap_of_its_bins(rows: Rows, bins: int) -> None:
    """In exact fractions of the bin's edges: (b - 1, b] / bins."""
    confidence, right = columns(rows)
    values = confidence.double().tolist()
    error = 0.0
    for b in range(1, bins + 1):
        inside = [
            (value, good)
            for value, good in zip(values, right.tolist(), strict=True)
            if b - 1 < value * bins <= b or (b == 1 and value == 0)
        ]
        if inside:
            accuracy = sum(good for _, good in inside) / len(inside)
            mean = sum(value for value, _ in inside) / len(inside)
            error += len(inside) / len(rows) * abs(accuracy - mean)
    assert calibration_error(confidence, right, bins) == pytest.approx(error, abs=1e-12)


def test_calibration_errors_that_are_known_by_hand() -> None:
    nine_of_ten = torch.tensor([True] * 9 + [False])
    assert calibration_error(torch.full((10,), 0.9), nine_of_ten) == pytest.approx(0, abs=1e-7)
    assert calibration_error(torch.full((10,), 0.5), nine_of_ten) == pytest.approx(0.4)
    assert calibration_error(torch.ones(10), nine_of_ten) == pytest.approx(0.1)
    two_bins = torch.tensor([0.95, 0.95, 0.05, 0.05])  # the gaps do not cancel out
    assert calibration_error(two_bins, torch.tensor([False, False, True, True])) == pytest.approx(
        0.95
    )
