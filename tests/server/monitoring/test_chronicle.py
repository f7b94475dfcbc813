"""What a run has told: pace, rates, curves, and events in words."""

from __future__ import annotations

from typing import Any

import pytest

from hetero_server.monitoring.chronicle import Chronicle
from support.events import an_event, recorded


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def round_event(client: str, round_: int, **changes: Any) -> dict[str, Any]:
    return {
        "client": client,
        "round": round_,
        "cut_layer": 3,
        "samples": 40,
        "exit_loss": 2.0,
        "server_loss": 1.0,
    } | changes


def evaluation(client: str, round_: int) -> dict[str, Any]:
    return {
        "client": client,
        "round": round_,
        "cut_layer": 3,
        "samples": 50,
        "exit_accuracy": 0.5,
        "server_accuracy": 0.75,
        "threshold_accuracy": 0.6,
        "offload_share": 0.25,
    }


def after_rounds(count: int, seconds: float, clock: Clock) -> Chronicle:
    chronicle = Chronicle(clock)
    for round_ in range(count):
        clock.now += seconds
        for client in ("a", "b"):
            chronicle.observe(an_event("round", **round_event(client, round_)))
    return chronicle


def test_the_time_left_is_that_of_the_rounds_left_at_the_pace_of_the_last_ones() -> None:
    clock = Clock()
    chronicle = after_rounds(5, 2.0, clock)
    assert chronicle.seconds_per_round() == pytest.approx(2.0)
    assert chronicle.seconds_left(rounds=10) == pytest.approx(10.0)
    clock.now += 1.5
    assert chronicle.seconds_left(rounds=10) == pytest.approx(8.5)


def test_nobody_knows_the_time_left_before_two_rounds_are_done() -> None:
    assert after_rounds(1, 2.0, Clock()).seconds_left(10) is None


def test_time_left_is_never_below_nothing() -> None:
    clock = Clock()
    chronicle = after_rounds(3, 2.0, clock)
    clock.now += 1000
    assert chronicle.seconds_left(rounds=4) == 0.0


def test_a_rate_is_a_clients_images_over_its_last_rounds() -> None:
    chronicle = after_rounds(4, 2.0, Clock())
    assert chronicle.samples_per_second("a") == pytest.approx(20.0)
    assert chronicle.samples_per_second("nobody") is None


def test_losses_and_accuracies_become_curves() -> None:
    chronicle = after_rounds(2, 1.0, Clock())
    chronicle.observe(an_event("evaluation", **evaluation("a", 1)))
    assert [point["round"] for point in chronicle.losses.points()] == [0, 1]
    assert chronicle.accuracies.points()[0]["all"]["server_accuracy"] == 0.75
    assert chronicle.evaluations["a"].offload_share == 0.25


SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "joined": ({"client": "a", "cut_layer": 3, "shard_size": 1200, "round": 0}, "1,200 images"),
    "returned": (
        {"client": "a", "round": 4, "base": 3, "first_step": 0},
        "a came back and went on from the end of round 4",
    ),
    "released": ({"client": "a", "round": 4, "why": "it slept"}, "goes on without a: it slept"),
    "left_out": (
        {"client": "a", "round": 0, "statistic": "update_norm", "value": 9.0, "usual": 1.0},
        "what a pushed is in no average of round 1: update norm of 9 where 1 is usual",
    ),
    "quarantined": (
        {"client": "a", "round": 0, "step": 1, "statistic": "server_loss", "value": 9, "usual": 1},
        "a was sent away for the rest of the run: server loss of 9",
    ),
    "finished": ({"rounds": 7}, "all 7 rounds are done"),
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_events_are_told_in_words(kind: str) -> None:
    fields, words = SENTENCES[kind]
    chronicle = Chronicle(Clock())
    chronicle.observe(an_event(kind, **fields))
    assert [event.kind for event in chronicle.happenings] == [kind]
    assert words in chronicle.happenings[0].text


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("LEFT", None, "a has left"),
        ("STALE", None, "a lost its connection, and may come back"),
        ("EVICTED", "NonFinite", "a was sent away (NonFinite)"),
    ],
)
def test_who_is_gone_is_told_apart(state: str, reason: str | None, words: str) -> None:
    chronicle = Chronicle(Clock())
    chronicle.observe(an_event("left", client="a", state=state, round=0, reason=reason))
    assert chronicle.happenings[0].text == words


def test_checkpoints_do_not_push_out_what_else_has_happened() -> None:
    chronicle = Chronicle(Clock())
    chronicle.observe(an_event("joined", client="a", cut_layer=3, shard_size=10, round=0))
    for round_ in range(300):
        chronicle.observe(an_event("checkpoint", round=round_, failed=None))
    assert [event.kind for event in chronicle.happenings] == ["joined", "checkpoint"]
    assert "after round 300" in chronicle.happenings[-1].text


def test_a_checkpoint_that_failed_is_not_the_last_one() -> None:
    clock = Clock()
    chronicle = Chronicle(clock)
    chronicle.observe(an_event("checkpoint", round=0, failed=None))
    clock.now += 60
    chronicle.observe(an_event("checkpoint", round=1, failed="No space left on device"))
    assert chronicle.saved_at == 1000.0
    assert "No space left" in chronicle.happenings[-1].text


def test_a_run_that_is_taken_up_keeps_its_curves_up_to_there_and_no_pace() -> None:
    events = [
        {"event": "round", "time": float(r), "seconds": 0.0} | round_event("a", r) for r in range(5)
    ]
    clock = Clock()
    chronicle = Chronicle(clock)
    chronicle.replay(recorded(events))
    chronicle.observe(an_event("resumed", round=2))
    assert [point["round"] for point in chronicle.losses.points()] == [0, 1, 2]
    assert chronicle.seconds_left(10) is None
    assert chronicle.samples_per_second("a") is None
