from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hetero_client.exits.rule import (
    UNCERTAINTY,
    Answers,
    Criterion,
    ExitRule,
    exits_early,
    least_confidence,
    normalized_entropy,
)

logits = st.integers(2, 12).flatmap(
    lambda classes: st.lists(
        st.lists(st.floats(-200, 200, width=32), min_size=classes, max_size=classes),
        min_size=1,
        max_size=8,
    )
)
# Entropies lie on a coarse grid, so that ties with each other and with thresholds are common.
grid = st.integers(0, 8).map(lambda eighths: eighths / 8)
images = st.lists(st.tuples(grid, st.booleans(), st.booleans()), min_size=1, max_size=40)
no_deadline = settings(deadline=None)  # torch's first calls are slow


def answers_of(rows: list[tuple[float, bool, bool]]) -> Answers:
    entropy, exit_right, server_right = (list(column) for column in zip(*rows, strict=True))
    return Answers(torch.tensor(entropy), torch.tensor(exit_right), torch.tensor(server_right))


def mixed_answers(count: int) -> Answers:
    """Distinct entropies in a shuffled order; exit and server are right in different places."""
    generator = torch.Generator().manual_seed(count)
    entropy = (torch.randperm(count, generator=generator) + 1) / (count + 1)
    exit_right, server_right = torch.rand(2, count, generator=generator) < 0.6
    return Answers(entropy, exit_right, server_right)


# --- uncertainty ----------------------------------------------------------------------------------


@no_deadline
@given(logits, st.sampled_from(sorted(UNCERTAINTY)))
def test_uncertainty_is_between_0_and_1(rows: list[list[float]], criterion: Criterion) -> None:
    uncertainty = ExitRule(0.5, criterion).uncertainty(torch.tensor(rows).softmax(dim=1))
    assert uncertainty.shape == (len(rows),)
    assert bool(((uncertainty >= 0) & (uncertainty <= 1)).all())


@pytest.mark.parametrize("criterion", UNCERTAINTY)
@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
def test_a_uniform_answer_has_uncertainty_1_whatever_the_number_of_classes(
    classes: int, criterion: Criterion
) -> None:
    uncertainty = UNCERTAINTY[criterion](torch.full((1, classes), 1 / classes))
    assert uncertainty.item() == pytest.approx(1, abs=1e-6)
    assert uncertainty.item() <= 1


@pytest.mark.parametrize("criterion", UNCERTAINTY)
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_certain_answer_has_uncertainty_0_exactly(classes: int, criterion: Criterion) -> None:
    assert UNCERTAINTY[criterion](torch.eye(classes)).tolist() == [0] * classes


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [([0.5, 0.5, 0, 0], 2 / 3), ([0.7, 0.2, 0.1], 0.45), ([0.9, 0.1], 0.2), ([0.4, 0.6], 0.8)],
)
def test_least_confidences_that_are_known_by_hand(
    probabilities: list[float], expected: float
) -> None:
    uncertainty = least_confidence(torch.tensor([probabilities]))
    assert uncertainty.item() == pytest.approx(expected, rel=1e-6)


def test_the_criteria_differ_in_what_they_offload_first() -> None:
    """Entropy minds how many classes are possible, confidence how likely the likeliest is."""
    between_two = [0.5, 0.5, 0.0, 0.0, 0.0]
    one_of_all = [0.6, 0.1, 0.1, 0.1, 0.1]
    answers = torch.tensor([between_two, one_of_all])
    assert normalized_entropy(answers).argmax() == 1
    assert least_confidence(answers).argmax() == 0


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.5, 0.5, 0, 0], 1 / 2),
        ([0.5, 0.25, 0.25, 0], 3 / 4),
        ([0.25, 0.25, 0.25, 0.25, 0, 0, 0, 0], 2 / 3),
        ([0.9, 0.1], 0.4689955935892812),
        ([0.7, 0.2, 0.1], 0.8018185525433373 / math.log(3)),
    ],
)
def test_entropies_that_are_known_by_hand(probabilities: list[float], expected: float) -> None:
    entropy = normalized_entropy(torch.tensor([probabilities]))
    assert entropy.item() == pytest.approx(expected, rel=1e-6)


@no_deadline
@given(st.floats(0.1, 20), st.floats(1.1, 4))
def test_entropy_falls_as_an_answer_grows_surer(scale: float, factor: float) -> None:
    direction = torch.tensor([[1.0, 0.3, 0.0, -0.5]])
    unsure, sure = ((scale * k * direction).softmax(dim=1) for k in (1, factor))
    assert normalized_entropy(sure).item() <= normalized_entropy(unsure).item()


# --- thresholds -----------------------------------------------------------------------------------


def test_an_entropy_at_the_threshold_is_answered_here() -> None:
    entropy = torch.tensor([0.0, 0.3, 0.4, 0.5])
    assert exits_early(entropy, 0.4).tolist() == [True, True, True, False]
    assert exits_early(entropy, 0.0).tolist() == [True, False, False, False]
    assert exits_early(entropy, -1.0).tolist() == [False] * 4
    assert exits_early(entropy, 1.0).tolist() == [True] * 4


@no_deadline
@given(images)
def test_threshold_1_gives_exactly_the_accuracy_of_the_exit(
    rows: list[tuple[float, bool, bool]],
) -> None:
    answers = answers_of(rows)
    point = answers.at(1.0)
    assert (point.accuracy, point.offload_share) == (answers.exit_accuracy, 0.0)
    assert answers.exit_accuracy == sum(right for _, right, _ in rows) / len(rows)


@no_deadline
@given(images)
def test_a_threshold_below_every_entropy_gives_exactly_the_accuracy_of_the_server(
    rows: list[tuple[float, bool, bool]],
) -> None:
    answers = answers_of(rows)
    point = answers.at(-1.0)
    assert (point.accuracy, point.offload_share) == (answers.server_accuracy, 1.0)
    assert answers.server_accuracy == sum(right for _, _, right in rows) / len(rows)


@no_deadline
@given(images, grid)
def test_each_image_is_answered_by_whom_its_entropy_says(
    rows: list[tuple[float, bool, bool]], threshold: float
) -> None:
    point = answers_of(rows).at(threshold)
    right = [at_exit if entropy <= threshold else there for entropy, at_exit, there in rows]
    offloaded = [entropy > threshold for entropy, _, _ in rows]
    assert point.threshold == threshold
    assert point.accuracy == pytest.approx(sum(right) / len(rows), rel=1e-12)
    assert point.offload_share == pytest.approx(sum(offloaded) / len(rows), rel=1e-12)


@no_deadline
@given(images, st.lists(st.floats(-1, 1), min_size=2))
def test_the_offload_share_never_rises_with_the_threshold(
    rows: list[tuple[float, bool, bool]], thresholds: list[float]
) -> None:
    answers = answers_of(rows)
    shares = [answers.at(threshold).offload_share for threshold in sorted(thresholds)]
    assert shares == sorted(shares, reverse=True)


def test_answers_compare_both_sides_with_the_labels() -> None:
    exit_ = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.1, 0.9, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    server = torch.tensor([[0.1, 0.1, 0.1, 0.7], [0.2, 0.8, 0.0, 0.0], [0.9, 0.1, 0.0, 0.0]])
    labels = torch.tensor([3, 1, 2])
    answers = Answers.of(exit_, server, labels)
    assert answers.exit_right.tolist() == [False, True, True]
    assert answers.server_right.tolist() == [True, True, False]
    assert answers.only_server_right == 1 / 3
    assert answers.uncertainty.tolist() == normalized_entropy(exit_).tolist()
    by_confidence = Answers.of(exit_, server, labels, "confidence")
    assert by_confidence.uncertainty.tolist() == least_confidence(exit_).tolist()


# --- the curve ------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [2, 3, 21])
def test_a_curve_leads_from_the_server_to_the_exit(points: int) -> None:
    answers = mixed_answers(57)
    curve = answers.curve(points)
    assert len(curve) == points
    assert (curve[0].accuracy, curve[0].offload_share) == (answers.server_accuracy, 1.0)
    assert (curve[-1].accuracy, curve[-1].offload_share) == (answers.exit_accuracy, 0.0)


def test_the_points_of_a_curve_are_what_their_thresholds_give() -> None:
    answers = mixed_answers(57)
    assert [answers.at(point.threshold) for point in answers.curve()] == answers.curve()


@pytest.mark.parametrize("count", [20, 57, 1000])
def test_the_offload_shares_of_a_curve_are_evenly_spaced(count: int) -> None:
    answers = mixed_answers(count)
    curve = answers.curve(21)
    shares = [point.offload_share for point in curve]
    assert shares == pytest.approx([1 - i / 20 for i in range(21)], abs=1.001 / count)
    assert {point.threshold for point in curve[1:-1]} <= set(answers.uncertainty.tolist())


@no_deadline
@given(images, st.integers(2, 30))
def test_a_curve_falls_even_where_entropies_are_equal(
    rows: list[tuple[float, bool, bool]], points: int
) -> None:
    curve = answers_of(rows).curve(points)
    shares = [point.offload_share for point in curve]
    thresholds = [point.threshold for point in curve]
    assert thresholds == sorted(thresholds)
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (1.0, 0.0)


def test_an_entropy_of_a_network_is_itself_a_threshold() -> None:
    """Entropies are fp32 and thresholds Python's floats; neither may be rounded past the other."""
    entropy: Tensor = normalized_entropy(torch.randn(500, 10).softmax(dim=1))
    answers = Answers(entropy, torch.zeros(500).bool(), torch.ones(500).bool())
    lowest = answers.at(entropy.min().item())
    assert lowest.offload_share == pytest.approx(499 / 500)
