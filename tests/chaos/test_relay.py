"""Kills while clients take turns, one whole round after another."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hetero_common.records.history import read_history
from hetero_common.records.rundir import read_plan
from hetero_lab.report.audit import audit
from support.chaos_fleet import (
    MODEL,
    Fleet,
    events,
    require_same,
    simulated,
    wait_for,
    wait_for_rounds,
)

if TYPE_CHECKING:
    from chaos.conftest import Launch
    from conftest import Simulate

ROUNDS = 12
AGREED = (*MODEL, "--rounds", str(ROUNDS), "--strategy", "sequential", "--order", "relay")


@pytest.fixture(scope="module")
def undisturbed(simulate: Simulate) -> Path:
    return simulated(simulate, AGREED)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_relay_goes_on_after_kills(
    seed: int, launch: Launch, tmp_path: Path, undisturbed: Path
) -> None:
    draw = random.Random(f"relay {seed}")
    with ExitStack() as stack:
        fleet = Fleet(launch, tmp_path, stack, AGREED)
        victims = draw.sample((0, draw.randint(1, 3)), 2)
        for round_, victim in zip(sorted(draw.sample(range(1, 10), 2)), victims, strict=True):
            wait_for_rounds(fleet.run, round_)
            if victim:
                fleet.kill_client(victim)
            else:
                fleet.kill_server()
        require_same(fleet, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_turn_passes_on_from_who_stays_away(
    number: int, launch: Launch, tmp_path: Path
) -> None:
    """More steps than a client may have under way: whenever it goes, its turn is not done."""
    gone = f"client-{number}"
    with ExitStack() as stack:
        fleet = Fleet(launch, tmp_path, stack, AGREED, server_flags=("--patience", "2"))
        wait_for_rounds(fleet.run, 2)
        fleet.clients.pop(gone).kill()
        wait_for(fleet.run, "released", client=gone)
        fleet.finish()
    assert len(events(fleet.run, "released")) == 1
    found = audit(read_history(fleet.run).whole(), read_plan(fleet.run))
    assert (found.findings, found.is_finished) == ([], True)
    for client in found.clients:
        assert (client.rounds == ROUNDS) == (client.client != gone)
        assert (client.released != ()) == (client.client == gone)
