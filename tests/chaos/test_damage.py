"""Files that are damaged between a kill and the next start, and two processes of one id."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hetero_common.records.checkpoints import CHECKPOINTS
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

ROUNDS = 15
AGREED = (*MODEL, "--rounds", str(ROUNDS), "--order", "interleaved")


@pytest.fixture(scope="module")
def undisturbed(simulate: Simulate) -> Path:
    return simulated(simulate, AGREED)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)


def checkpoints(run: Path) -> list[Path]:
    """The oldest first."""
    return sorted((run / CHECKPOINTS).glob("round*.safetensors"))


DAMAGES = [truncate, flip]


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_server_goes_on_from_the_checkpoint_before_a_damaged_one(
    damage: Callable[[Path], None], launch: Launch, tmp_path: Path, undisturbed: Path
) -> None:
    with ExitStack() as stack:
        fleet = Fleet(launch, tmp_path, stack, AGREED)
        wait_for(fleet.run, "checkpoint", round=5)
        fleet.server.kill()
        before, newest = checkpoints(fleet.run)
        damage(newest)
        fleet.resume_server()
        require_same(fleet, undisturbed)
        said = fleet.server.finish().stderr
        assert f"checkpoint {newest} is not used: it is cut short or damaged" in said
    (resumed,) = events(fleet.run, "resumed")
    assert before.name.startswith(f"round{resumed['round'] + 1:07d}")


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_client_goes_back_behind_its_damaged_checkpoint_with_the_server(
    damage: Callable[[Path], None], launch: Launch, tmp_path: Path, undisturbed: Path
) -> None:
    with ExitStack() as stack:
        flags = ("--checkpoint-every", str(ROUNDS))  # so that the server goes back further
        fleet = Fleet(launch, tmp_path, stack, AGREED, server_flags=flags)
        wait_for_rounds(fleet.run, 4)
        fleet.server.kill()
        fleet.clients["client-2"].kill()
        newest = checkpoints(fleet.folder / "client-2")[-1]
        damage(newest)
        fleet.resume_server()
        fleet.clients["client-2"] = fleet.start_client(2)
        require_same(fleet, undisturbed)
        said = fleet.clients["client-2"].finish().stderr
        assert f"checkpoint {newest} is not used: it is cut short or damaged" in said


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_client_whose_last_state_is_damaged_starts_anew(
    damage: Callable[[Path], None], launch: Launch, tmp_path: Path
) -> None:
    """The server goes on, so there is no older state that it could go back to."""
    with ExitStack() as stack:
        fleet = Fleet(launch, tmp_path, stack, AGREED)
        wait_for_rounds(fleet.run, 4)
        fleet.clients["client-2"].kill()
        newest = checkpoints(fleet.folder / "client-2")[-1]
        damage(newest)
        fleet.clients["client-2"] = fleet.start_client(2)
        fleet.finish()
        said = fleet.clients["client-2"].finish().stderr
        assert f"checkpoint {newest} is not used: it is cut short or damaged" in said
    assert len(events(fleet.run, "joined", client="client-2")) == 2
    found = audit(read_history(fleet.run).whole(), read_plan(fleet.run))
    assert (found.findings, found.is_finished) == ([], True)


@pytest.mark.slow
def test_of_two_processes_with_one_id_the_newer_one_goes_on(
    launch: Launch, tmp_path: Path, undisturbed: Path
) -> None:
    with ExitStack() as stack:
        fleet = Fleet(launch, tmp_path, stack, AGREED)
        wait_for_rounds(fleet.run, 2)
        fleet.clients["client-3"].signal(signal.SIGSTOP)  # the run waits for both of the others
        older, newer = fleet.clients["client-2"], fleet.start_client(2)
        wait_for(fleet.run, "returned", client="client-2")
        ended = older.finish()
        assert ended.code == 1
        assert ended.stderr.splitlines()[-1] == (
            "hetero-client: a newer process registered as client-2: this one can stop"
        )
        fleet.clients["client-2"] = newer
        fleet.clients["client-3"].signal(signal.SIGCONT)
        require_same(fleet, undisturbed)
