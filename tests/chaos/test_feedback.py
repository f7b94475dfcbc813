"""Processes that are killed while clients wait for what the server returns: the same weights.

What the server has returned is on the client's disk before it is used, so that a client that is
started again trains the first steps of its round as it did before.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hetero_client.training.feedback_journal import HEAD, JOURNAL_FILE
from support.chaos_fleet import (
    MODEL,
    STEPS,
    Fleet,
    events,
    require_exactly_once,
    require_same,
    simulated,
    wait_for,
    wait_for_rounds,
)

if TYPE_CHECKING:
    from chaos.conftest import Launch
    from conftest import Simulate

ROUNDS = 12
VICTIMS = ("client", "server", "both")


def agreed(feedback: str) -> tuple[str, ...]:
    """With a wire dtype that rounds what is returned, for one of them.

    The other one's losses are adjusted, for which the server has to know each client's classes.
    """
    own = {"gradient": ("--logit-adjustment", "1"), "logits": ("--wire", "bf16")}[feedback]
    return (
        *(*MODEL, "--rounds", str(ROUNDS), "--order", "interleaved"),
        *("--feedback", feedback, *own),
    )


@pytest.fixture(scope="module")
def undisturbed(simulate: Simulate) -> dict[str, Path]:
    return {name: simulated(simulate, agreed(name)) for name in ("gradient", "logits")}


def records(journal: Path) -> int:
    """How many steps of a client's round are recorded by now."""
    data = b""
    with contextlib.suppress(FileNotFoundError):
        data = journal.read_bytes()
    count = place = 0
    while place < len(data):
        place += HEAD.size + HEAD.unpack_from(data.ljust(place + HEAD.size, b"\0"), place)[0]
        count += place <= len(data)
    return count


def stop_in_mid_round(fleet: Fleet, number: int, step: int) -> None:
    """Stop the server when it has returned so much to a client of a round that is not over."""
    journal = fleet.folder / f"client-{number}" / JOURNAL_FILE
    last = STEPS - 3  # one more may be returned, and another one sent, before it stands still
    while True:
        while not step <= records(journal) <= last:
            time.sleep(0.001)
        fleet.server.signal(signal.SIGSTOP)
        if step <= records(journal) <= last:
            return
        fleet.server.signal(signal.SIGCONT)  # too late


@pytest.mark.slow
def test_a_journal_that_is_cut_short_costs_its_steps_their_feedback(
    launch: Launch, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        fleet = Fleet(launch, tmp_path, stack, agreed("gradient"))
        stop_in_mid_round(fleet, 2, step=3)
        fleet.clients["client-2"].kill()
        journal = fleet.folder / "client-2" / JOURNAL_FILE
        journal.write_bytes(journal.read_bytes()[: HEAD.size + 1])
        fleet.server.signal(signal.SIGCONT)
        fleet.clients["client-2"] = fleet.start_client(2)
        fleet.finish()
        said = fleet.clients["client-2"].finish().stderr
        require_exactly_once(fleet.run)
    (returned,) = events(fleet.run, "returned")
    gone = f"{returned['first_step'] - 1} steps of round {returned['round'] + 1} is gone"
    assert f"what the server returned for {gone}: they are trained with" in said


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("feedback", ["gradient", "logits"])
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
            number, step = draw.randint(1, 3), draw.randint(1, 3)
            stop_in_mid_round(fleet, number, step)
            if victim != "server":
                fleet.kill_client(number)
            if victim != "client":
                fleet.kill_server()
                continue
            fleet.server.signal(signal.SIGCONT)
            wait_for(fleet.run, "returned", client=f"client-{number}")
            returned = events(fleet.run, "returned", client=f"client-{number}")[-1]
            assert step <= returned["first_step"] < STEPS, "it was in the middle of its round"
        require_same(fleet, undisturbed[feedback])
        for name in fleet.clients:
            assert not (fleet.folder / name / JOURNAL_FILE).exists(), "the run is over"
