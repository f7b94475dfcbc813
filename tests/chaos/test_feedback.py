"""Processes that are killed while clients wait for what the server returns: the same weights.

What the server has returned is on the client's disk before it is used, so that a client that is
started again trains the first steps of its round as it did before.
"""

from __future__ import annotations

import itertools
import random
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos.fleet import MODEL, Fleet, require_same, simulated, wait_for_rounds
from hetero_client.journal import JOURNAL_FILE

if TYPE_CHECKING:
    from chaos.conftest import Launch
    from conftest import Simulate

ROUNDS = 12
VICTIMS = ("client", "server", "both")


def agreed(feedback: str) -> tuple[str, ...]:
    """With a wire dtype that rounds what is returned, for one of them."""
    wire = {"gradient": "fp32", "logits": "bf16"}[feedback]
    return (
        *(*MODEL, "--rounds", str(ROUNDS), "--order", "interleaved"),
        *("--feedback", feedback, "--wire", wire),
    )


@pytest.fixture(scope="module")
def undisturbed(simulate: Simulate) -> dict[str, Path]:
    return {name: simulated(simulate, agreed(name)) for name in ("gradient", "logits")}


def wait_for_step(fleet: Fleet, number: int) -> None:
    """Until the client has heard of a step of a round that is not over."""
    journal = fleet.folder / f"client-{number}" / JOURNAL_FILE
    for _ in itertools.count():
        try:
            if journal.stat().st_size:
                return
        except FileNotFoundError:
            continue


def cases() -> list[object]:
    fast = [("gradient", "client", 0)]
    every = itertools.product(("gradient", "logits"), VICTIMS, range(3))
    return [case if case in fast else pytest.param(*case, marks=pytest.mark.slow) for case in every]


@pytest.mark.parametrize(("feedback", "victim", "seed"), cases())
def test_a_kill_changes_nothing(
    feedback: str,
    victim: str,
    seed: int,
    launch: Launch,
    tmp_path: Path,
    undisturbed: dict[str, Path],
) -> None:
    draw = random.Random(f"{feedback} {victim} {seed}")
    with ExitStack() as stack:
        fleet = Fleet(launch, tmp_path, stack, agreed(feedback))
        for round_ in sorted(draw.sample(range(1, ROUNDS - 2), 2)):
            wait_for_rounds(fleet.run, round_)
            number = draw.randint(1, 3)
            wait_for_step(fleet, number)
            if victim != "client":
                fleet.kill_server()
            if victim != "server":
                fleet.kill_client(number)
        require_same(fleet, undisturbed[feedback])
        for name in fleet.clients:
            assert not (fleet.folder / name / JOURNAL_FILE).exists(), "the run is over"
