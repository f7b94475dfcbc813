"""What must be better than what, on a task that takes seconds.

Six clients at cuts 2, 3 and 4 learn digits from 100 batches of 8 images each. The margins asked for
are at most half of what was measured on seeds 0 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from hetero_common.rundir import read_events

if TYPE_CHECKING:
    from conftest import Simulate

EASY = (
    *("--dataset", "digits", "--normalization", "digits", "--image-size", "8", "--augment", "none"),
    *("--model", "tinycnn", "--width", "8", "--clients", "6", "--cut-layers", "2,3,4"),
)
METHODS = {
    "default": ("--rounds", "100", "--exits", "2,3,4"),
    "last exit": ("--rounds", "100", "--exits", "last"),
    "all exits": ("--rounds", "100", "--exits", "all"),
    "apart": ("--rounds", "100", "--exits", "2,3,4", "--client-aggregation", "none"),
    "isolated": ("--rounds", "100", "--exits", "2,3,4", "--method", "isolated"),
    "centralized": ("--rounds", "100", "--method", "centralized"),
    "paper": (
        *("--preset", "paper", "--order", "interleaved", "--batch-size", "8"),
        *("--rounds", "4", "--steps-per-round", "25"),
    ),
}
SKEWED = (
    *("--strategy", "sequential", "--server-lr", "0.05", "--rounds", "4"),
    *("--steps-per-round", "25", "--partition", "dirichlet", "--alpha", "0.1", "--min-shard", "16"),
)


@dataclass(frozen=True)
class Accuracy:
    """Means over the clients, in points; 0 where there is none."""

    exit: float
    server: float


class Trained:
    """Runs by their flags; each is trained once."""

    def __init__(self, simulate: Simulate) -> None:
        self._simulate = simulate
        self._known: dict[tuple[str, ...], Accuracy] = {}

    def __call__(self, *flags: str) -> Accuracy:
        if flags not in self._known:
            run = self._simulate(*EASY, *flags)
            last = [event for event in read_events(run) if event["event"] == "evaluation"]
            self._known[flags] = Accuracy(
                _mean([event.get("exit_accuracy") for event in last]),
                _mean([event.get("server_accuracy", event.get("accuracy")) for event in last]),
            )
        return self._known[flags]


def _mean(shares: list[float | None]) -> float:
    return 100 * sum(share or 0.0 for share in shares) / len(shares)


@pytest.fixture(scope="module")
def trained(simulate: Simulate) -> Trained:
    return Trained(simulate)


def test_taking_part_is_worth_more_than_staying_alone(trained: Trained) -> None:
    assert trained(*METHODS["default"]).exit > trained(*METHODS["isolated"]).exit + 10


def test_one_average_over_clients_and_server_is_what_makes_it_work(trained: Trained) -> None:
    default, apart = trained(*METHODS["default"]), trained(*METHODS["apart"])
    assert default.exit > apart.exit + 10
    assert default.server > apart.server + 18


def test_the_default_preset_beats_the_plain_method_on_as_many_images(trained: Trained) -> None:
    default, paper = trained(*METHODS["default"]), trained(*METHODS["paper"])
    assert default.exit > paper.exit + 20
    assert default.server > paper.server + 5


def test_nothing_is_better_than_to_train_the_whole_model_on_all_data(trained: Trained) -> None:
    assert trained(*METHODS["centralized"]).server > trained(*METHODS["default"]).server


@pytest.mark.parametrize("more", ["default", "all exits"])
def test_more_exits_are_better_than_the_last_alone(trained: Trained, more: str) -> None:
    assert trained(*METHODS[more]).exit > trained(*METHODS["last exit"]).exit + 2


def test_interleaved_steps_beat_one_client_after_another_under_label_skew(trained: Trained) -> None:
    interleaved = trained(*SKEWED, "--order", "interleaved")
    relay = trained(*SKEWED, "--order", "relay")
    assert interleaved.server > relay.server + 14
