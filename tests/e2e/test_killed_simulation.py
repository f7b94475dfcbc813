"""hetero-sim, killed for real."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hetero_common.records.checkpoints import CHECKPOINTS
from lab.test_simulation import SMALL, weight_files

if TYPE_CHECKING:
    from conftest import Simulate
    from support.processes import Launch

FLAGS = (*SMALL, "--clients", "2", "--rounds", "16", "--checkpoint-seconds", "0")


def test_a_simulation_goes_on_after_kill_9(launch: Launch, simulate: Simulate) -> None:
    with launch("hetero-sim", *FLAGS, "--run-dir", "run") as killed:
        run = killed.folder / "run"
        while not list((run / CHECKPOINTS).glob("run/round*")):
            time.sleep(0.01)
        killed.kill()
    with launch("hetero-sim", "--resume", str(run)) as resumed:
        assert resumed.finish().code == 0
    assert weight_files(run) == weight_files(simulate(*FLAGS))
