from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from client.exits.test_rule import answers_of, images
from hetero_client.exits.rule import Answers
from hetero_client.exits.thresholds import (
    Sweep,
    Target,
    binomial_cdf,
    for_accuracy,
    for_loss,
    for_offload,
    images_needed,
    lost_images,
    upper_bound,
)
from hetero_common.errors import SettingsError

Rows = list[tuple[float, bool, bool]]
"""Entropy, whether the exit is right, whether the server is."""

# Fractions that images can have, and ones that they cannot.
shares = st.one_of(st.floats(0, 1), st.integers(0, 12).map(lambda twelfths: twelfths / 12))
confidences = st.floats(0.5, 0.999)
SURE_BUT_LOST = [(0.1, False, True)] * 100
SOME = [(0.1, True, True), (0.2, False, True), (0.3, True, False), (0.4, False, True)]


def candidates(rows: Rows) -> list[float]:
    """Every threshold that makes a difference."""
    return [-1.0, *sorted({entropy for entropy, _, _ in rows})[:-1], 1.0]


# --- the sweep ------------------------------------------------------------------------------------


@given(images)
def test_a_sweep_counts_what_each_threshold_gives(rows: Rows) -> None:
    sweep = Sweep.of(answers_of(rows))
    assert sweep.images == len(rows)
    assert sweep.thresholds.tolist() == candidates(rows)
    counted = zip(
        sweep.thresholds.tolist(),
        *(column.tolist() for column in (sweep.offloaded, sweep.right, sweep.lost)),
        strict=True,
    )
    for threshold, offloaded, right, lost in counted:
        at_exit = [row for row in rows if row[0] <= threshold]
        at_server = [row for row in rows if row[0] > threshold]
        assert offloaded == len(at_server)
        assert right == sum(e for _, e, _ in at_exit) + sum(s for _, _, s in at_server)
        assert lost == sum(s and not e for _, e, s in at_exit)
        assert lost == lost_images(answers_of(rows), threshold)


@given(images)
def test_offload_falls_and_loss_rises_with_the_threshold(rows: Rows) -> None:
    sweep = Sweep.of(answers_of(rows))
    assert bool((sweep.offloaded.diff() < 0).all())
    assert bool((sweep.lost.diff() >= 0).all())
    assert (int(sweep.offloaded[0]), int(sweep.offloaded[-1])) == (len(rows), 0)
    assert int(sweep.lost[0]) == 0


# --- a share to offload ---------------------------------------------------------------------------


@given(images, shares)
def test_a_threshold_for_a_share_offloads_at_most_that_share(rows: Rows, share: float) -> None:
    answers = answers_of(rows)
    threshold = for_offload(answers, share)
    assert answers.at(threshold).offload_share <= share
    lower = [each for each in candidates(rows) if each < threshold]
    assert all(answers.at(each).offload_share > share for each in lower), "it offloads what it may"


@given(images, shares, shares)
def test_a_larger_share_never_has_a_higher_threshold(rows: Rows, one: float, other: float) -> None:
    answers = answers_of(rows)
    assert for_offload(answers, max(one, other)) <= for_offload(answers, min(one, other))


@given(images)
def test_all_and_nothing_are_offloaded_of_any_images(rows: Rows) -> None:
    assert for_offload(answers_of(rows), 1.0) == -1.0
    assert for_offload(answers_of(rows), 0.0) == 1.0


def test_a_share_is_a_quantile_where_entropies_differ() -> None:
    entropy = torch.linspace(0.05, 0.95, 10)
    answers = Answers(entropy, torch.ones(10).bool(), torch.ones(10).bool())
    assert for_offload(answers, 0.3) == entropy[6].item()
    assert for_offload(answers, 0.39) == entropy[6].item()
    assert answers.at(for_offload(answers, 0.3)).offload_share == 0.3


# --- an accuracy ----------------------------------------------------------------------------------


@given(images, shares)
def test_a_threshold_for_an_accuracy_reaches_it_with_the_least_offload(
    rows: Rows, accuracy: float
) -> None:
    answers = answers_of(rows)
    reached = [each for each in candidates(rows) if answers.at(each).accuracy >= accuracy]
    if reached:
        assert for_accuracy(answers, accuracy) == reached[-1]
    else:
        with pytest.raises(SettingsError, match=r"^no threshold gives an accuracy of "):
            for_accuracy(answers, accuracy)


def test_the_best_that_there_is_is_named_and_can_be_asked_for() -> None:
    """Both sides are right on the first image, and one of them on two more."""
    answers = answers_of([*SOME, (0.5, True, False), (0.6, True, False)])
    with pytest.raises(SettingsError) as refused:
        for_accuracy(answers, 0.95)
    assert str(refused.value) == (
        "no threshold gives an accuracy of 0.95 on these 6 images: the best is 0.6666, with 0.0% "
        "offloaded: ask for --accuracy 0.6666 or less"
    )
    assert for_accuracy(answers, 0.6666) == 1.0


# --- a loss ---------------------------------------------------------------------------------------


@given(images, st.floats(0, 0.99), confidences)
def test_a_threshold_for_a_loss_is_the_highest_whose_bound_is_below_it(
    rows: Rows, max_loss: float, confidence: float
) -> None:
    answers = answers_of(rows)
    bounds = [
        upper_bound(lost_images(answers, threshold), len(rows), confidence)
        for threshold in candidates(rows)[1:]
    ]
    assume(all(abs(bound - max_loss) > 1e-9 for bound in bounds))
    passed = [bound <= max_loss for bound in bounds]
    until = passed.index(False) if False in passed else len(passed)
    assert for_loss(answers, max_loss, confidence) == candidates(rows)[until]


@given(images, confidences)
def test_no_loss_at_all_offloads_everything(rows: Rows, confidence: float) -> None:
    assert for_loss(answers_of(rows), 0.0, confidence) == -1.0


def test_too_few_images_offload_everything() -> None:
    always_right = [(0.1, True, True)]
    assert for_loss(answers_of(always_right * 298), 0.01, 0.95) == -1.0
    assert for_loss(answers_of(always_right * 299), 0.01, 0.95) == 1.0


def test_an_exit_that_is_wrong_where_it_is_surest_offloads_everything() -> None:
    rows = SURE_BUT_LOST + [(0.5, True, True)] * 400
    assert for_loss(answers_of(rows), 0.1, 0.95) == -1.0


def test_what_the_exit_alone_has_right_makes_up_for_nothing() -> None:
    rows = SURE_BUT_LOST + [(0.1, True, False)] * 300
    assert answers_of(rows).at(1.0).accuracy > answers_of(rows).server_accuracy
    assert for_loss(answers_of(rows), 0.1, 0.95) == -1.0


def drawn(count: int, steps: int | None, generator: torch.Generator) -> Answers:
    """Images of which u/2 are lost at entropy u, which is uniform, or uniform on a grid.

    The exit alone is right on as many of the others as it loses.
    """
    entropy = torch.rand(count, generator=generator, dtype=torch.float64)
    if steps is not None:
        entropy = (entropy * steps).ceil() / steps
    lost, gained = torch.rand(2, count, generator=generator) < entropy / 2
    return Answers(entropy, ~lost, ~gained | lost)


def true_risk(threshold: float, steps: int | None) -> float:
    """Of all the images that `drawn` draws from: P(entropy <= threshold and lost)."""
    if threshold < 0:
        return 0.0
    if steps is None:
        return threshold**2 / 4
    return sum(i / steps / 2 for i in range(1, steps + 1) if i / steps <= threshold) / steps


def the_naive_choice(answers: Answers, max_loss: float) -> float:
    """The highest threshold at which few enough of these images are lost."""
    sweep = Sweep.of(answers)
    return float(sweep.thresholds[sweep.lost <= max_loss * sweep.images][-1])


@pytest.mark.parametrize("steps", [None, 10], ids=["distinct", "ties"])
@pytest.mark.parametrize(
    ("count", "max_loss", "confidence"), [(200, 0.045, 0.9), (600, 0.045, 0.9), (300, 0.1, 0.8)]
)
def test_the_risk_is_kept_with_its_confidence_and_not_by_the_naive_choice(
    count: int, max_loss: float, confidence: float, steps: int | None
) -> None:
    """In 1500 draws, within three standard deviations; the naive one breaks it far more often."""
    generator = torch.Generator().manual_seed(count)
    draws, too_much, naively_too_much, risks = 1500, 0, 0, []
    for _ in range(draws):
        answers = drawn(count, steps, generator)
        risks.append(true_risk(for_loss(answers, max_loss, confidence), steps))
        too_much += risks[-1] > max_loss
        naively_too_much += true_risk(the_naive_choice(answers, max_loss), steps) > max_loss
    promised = 1 - confidence
    allowed = promised + 3 * math.sqrt(promised * confidence / draws)
    assert too_much / draws <= allowed
    assert naively_too_much / draws > allowed + 0.05
    assert sum(risks) / draws > max_loss / 3, "it is no empty promise"


# --- the bound ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "confidence", "bound"),
    [
        (0, 299, 0.95, 0.009969146793),  # 1 - 0.05 ** (1 / 299)
        (0, 10, 0.9, 0.205671765276),
        (3, 20, 0.95, 0.343663804314),
        (5, 500, 0.95, 0.020910322942),
        (40, 1000, 0.99, 0.056848069408),
        (123, 50_000, 0.95, 0.002856771470),
        (10, 10, 0.95, 1.0),
    ],
)
def test_upper_bounds_are_those_of_the_beta_quantile(
    successes: int, trials: int, confidence: float, bound: float
) -> None:
    """Clopper and Pearson: the quantile of Beta(k + 1, n - k); values from scipy 1.17.1."""
    assert upper_bound(successes, trials, confidence) == pytest.approx(bound, abs=1e-12)


@given(st.integers(1, 60), st.floats(0, 1), st.data())
def test_a_tail_is_the_sum_of_its_terms(
    trials: int, probability: float, data: st.DataObject
) -> None:
    successes = data.draw(st.integers(0, trials))
    terms = [
        math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k)
        for k in range(successes + 1)
    ]
    assert binomial_cdf(successes, trials, probability) == pytest.approx(sum(terms), abs=1e-12)


@given(st.integers(1, 300), confidences, st.data())
def test_a_bound_is_where_the_tail_is_what_is_left_of_the_confidence(
    trials: int, confidence: float, data: st.DataObject
) -> None:
    successes = data.draw(st.integers(0, trials - 1))
    bound = upper_bound(successes, trials, confidence)
    assert binomial_cdf(successes, trials, bound) == pytest.approx(1 - confidence, abs=1e-9)


@pytest.mark.parametrize(
    ("max_loss", "confidence", "needed"),
    [
        (0.01, 0.95, 299),
        (0.05, 0.95, 59),
        (0.1, 0.9, 22),
        (0.005, 0.95, 598),
        (0.0, 0.95, None),
        (5e-324, 0.95, None),
    ],
)
def test_as_many_images_are_needed_as_can_show_it(
    max_loss: float, confidence: float, needed: int | None
) -> None:
    assert images_needed(max_loss, confidence) == needed
    if needed is not None:
        assert binomial_cdf(0, needed, max_loss) <= 1 - confidence
        assert binomial_cdf(0, needed - 1, max_loss) > 1 - confidence


# --- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "words", "threshold"),
    [
        (Target("offload", 0.25), "at most 25% offloaded", pytest.approx(0.3)),
        (Target("accuracy", 0.75), "an accuracy of 75%", pytest.approx(0.3)),
        (Target("max-loss", 0.3, 0.9), "at most 30% lost, with confidence 0.9", -1.0),
        (Target("max-loss", 0.7, 0.5), "at most 70% lost, with confidence 0.5", 1.0),
    ],
)
def test_a_target_is_told_and_chosen_for(target: Target, words: str, threshold: float) -> None:
    answers = answers_of(SOME)
    assert str(target) == words
    assert target.choose(answers) == threshold
