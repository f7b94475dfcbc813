"""Which values are far beyond those of the other clients, and which are not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero_common.agreement.plan import Plan
from hetero_server.learning.outliers import Outlier, RecentSteps, Update, harmless, outlying_updates

HARMLESS = {"server_loss": 2.0, "gradient_norm": 20.0, "activation_peak": 10.0}
USUAL = {"server_loss": 1.0, "gradient_norm": 3.0, "activation_peak": 12.0}
ELEVEN = math.exp(6 * 0.4)
"""How many times the usual is never an outlier."""

positive = st.floats(1e-6, 1e6)


def some_steps(
    recent: RecentSteps,
    values: Mapping[str, float] = USUAL,
    *,
    steps: int = 8,
    clients: Sequence[str] = ("a", "b"),
) -> None:
    for _ in range(steps):
        for client_id in clients:
            recent.judge(client_id, USUAL | dict(values), ())


@pytest.mark.parametrize("name", HARMLESS)
def test_a_step_is_an_outlier_above_eleven_times_what_the_others_usually_have(name: str) -> None:
    recent = RecentSteps(HARMLESS)
    usual = 2 * HARMLESS[name]
    some_steps(recent, {name: usual})
    below, above = usual * ELEVEN * 0.999, usual * ELEVEN * 1.001
    assert recent.judge("c", USUAL | {name: below}, "ab") is None
    assert recent.judge("c", USUAL | {name: above}, "ab") == Outlier(name, above, usual)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_harmless_counts_as_such_however_small_the_usual_is(name: str) -> None:
    recent = RecentSteps(HARMLESS)
    some_steps(recent, {name: 1e-9})
    limit = HARMLESS[name] * ELEVEN
    assert recent.judge("c", USUAL | {name: limit * 0.999}, "ab") is None
    assert recent.judge("c", USUAL | {name: limit * 1.001}, "ab") == Outlier(
        name, limit * 1.001, 1e-9
    )


@given(st.lists(positive, min_size=8, max_size=8), st.lists(positive, min_size=8, max_size=8))
def test_only_the_upper_side_counts(first: list[float], second: list[float]) -> None:
    recent = RecentSteps(HARMLESS)
    for mine, others in zip(first, second, strict=True):
        recent.judge("a", USUAL | {"activation_peak": mine}, ())
        recent.judge("b", USUAL | {"activation_peak": others}, ())
    least = min(*first, *second)
    assert recent.judge("c", USUAL | {"activation_peak": least}, "ab") is None


@given(
    st.lists(st.floats(0, 3), min_size=2, max_size=5),
    st.lists(st.floats(-0.7, 0.7), min_size=20, max_size=60),
    st.floats(1e-3, 1e4),
)
def test_clients_that_differ_by_a_constant_factor_and_noise_are_never_flagged(
    offsets: list[float], noise: list[float], scale: float
) -> None:
    """Cuts of other depths: factors of up to 3 between them, of 2 in each step."""
    recent = RecentSteps(HARMLESS)
    clients = [str(number) for number in range(len(offsets))]
    for turn, jitter in enumerate(noise):
        client_id = clients[turn % len(clients)]
        factor = math.exp(offsets[turn % len(clients)] * math.log(3) / 3 + jitter)
        step = dict.fromkeys(HARMLESS, scale * factor)
        assert recent.judge(client_id, step, [c for c in clients if c != client_id]) is None


@given(positive, positive)
def test_nobody_is_compared_with_itself(first: float, second: float) -> None:
    recent = RecentSteps(HARMLESS)
    for _ in range(20):
        recent.judge("a", USUAL | {"activation_peak": first}, ())
    assert recent.judge("a", USUAL | {"activation_peak": second}, ()) is None


def test_less_than_four_steps_of_others_are_no_comparison() -> None:
    recent = RecentSteps(HARMLESS)
    some_steps(recent, steps=3, clients="a")
    absurd = USUAL | {"activation_peak": 6e4}
    assert recent.judge("c", absurd, "a") is None
    some_steps(recent, steps=1, clients="a")
    assert recent.judge("c", absurd, "a") is not None


def test_those_who_are_gone_are_not_compared_with() -> None:
    recent = RecentSteps(HARMLESS)
    some_steps(recent)
    assert recent.judge("c", USUAL | {"activation_peak": 6e4}, ("unknown",)) is None


def test_a_client_does_not_count_for_more_because_it_is_fast() -> None:
    recent = RecentSteps(HARMLESS)
    some_steps(recent)
    some_steps(recent, {"activation_peak": 6e4}, steps=1000, clients=("fast",))
    assert recent.judge("c", USUAL | {"activation_peak": 6e4}, ("a", "b", "fast")) is not None


def test_where_the_others_differ_among_themselves_more_is_usual() -> None:
    recent = RecentSteps(HARMLESS)
    for client_id, peak in (("a", 20.0), ("b", 20.0 * math.e**2)):
        some_steps(recent, {"activation_peak": peak}, clients=client_id)
    median = 20 * math.e
    assert recent.judge("c", USUAL | {"activation_peak": median * math.exp(5.9)}, "ab") is None
    assert recent.judge("c", USUAL | {"activation_peak": median * math.exp(6.1)}, "ab")


def test_when_everybody_changes_the_usual_does_too() -> None:
    """Nobody comes near the eight outliers that send away."""
    recent = RecentSteps(HARMLESS)
    some_steps(recent, clients="abc")
    flagged = dict.fromkeys("abc", 0)
    for _ in range(20):
        for client_id in "abc":
            others = [other for other in "abc" if other != client_id]
            found = recent.judge(client_id, USUAL | {"gradient_norm": 1e6}, others)
            flagged[client_id] += found is not None
    assert max(flagged.values()) == 4


def test_what_is_harmless_follows_from_the_plan() -> None:
    plan = Plan(classes=100, grad_clip=3)
    assert harmless(plan) == {
        "server_loss": pytest.approx(math.log(100)),
        "gradient_norm": 3,
        "activation_peak": 10,
    }
    assert harmless(Plan(grad_clip=0))["gradient_norm"] == 20


# Updates.


def flagged(updates: Mapping[str, Update]) -> list[str]:
    return sorted(outlying_updates("update_norm", updates))


def updates(*norms: float, steps: Sequence[int] = (), length: float = 5.0) -> dict[str, Update]:
    taken = steps or [8] * len(norms)
    return {
        client_id: Update(norm, length, count)
        for client_id, norm, count in zip("abcdef", norms, taken, strict=False)
    }


def test_an_update_ten_times_the_median_of_two_others_is_none() -> None:
    assert flagged(updates(1.0, 1.2, 10.9)) == []
    assert outlying_updates("update_norm", updates(1.0, 1.5, 13.0)) == {
        "c": Outlier("update_norm", 13.0, 1.25)
    }


def test_with_one_other_nobody_can_say_which_is_right() -> None:
    assert flagged(updates(1.0, 1e6)) == []


def test_an_update_shorter_than_the_weights_is_left_in() -> None:
    """A converged client hardly moves, and one that has harder data, or has just come, does."""
    assert flagged(updates(0.001, 0.002, 4.9)) == []
    assert flagged(updates(0.001, 0.002, 5.1)) == ["c"]


@given(
    st.lists(st.integers(1, 5000), min_size=3, max_size=6),
    st.floats(0, 1),
    st.floats(1e-3, 1e3),
)
def test_shards_of_any_size_are_left_in(steps: list[int], power: float, scale: float) -> None:
    """Whether updates grow with the steps like a random walk, or straight, or hardly."""
    norms = [scale * count**power for count in steps]
    assert flagged(updates(*norms, steps=steps, length=0.0)) == []


@given(st.integers(2, 5), st.floats(1.01e3, 1e30), st.lists(st.floats(1, 10), min_size=6))
def test_an_absurd_update_among_honest_ones_is_left_out_alone(
    honest: int, absurd: float, norms: list[float]
) -> None:
    assert flagged(updates(absurd, *norms[:honest])) == ["a"]
