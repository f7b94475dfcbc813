"""A client that is stopped, not killed: nothing is closed, it only says nothing any more."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hetero_common.records.history import read_history, read_records
from hetero_common.records.rundir import read_plan
from hetero_lab.report.audit import audit
from support.chaos_fleet import wait_for

if TYPE_CHECKING:
    from chaos.conftest import Launch

MODEL = (
    *("--model", "tinycnn", "--width", "4", "--image-size", "8", "--normalization", "digits"),
    *("--batch-size", "16", "--rounds", "600", "--steps-per-round", "4"),
)


@pytest.mark.slow
def test_a_frozen_client_is_left_behind_and_joins_again(launch: Launch, tmp_path: Path) -> None:
    run = tmp_path / "server"
    with ExitStack() as stack:
        server = stack.enter_context(
            launch(
                *("hetero-server", "--listen", "127.0.0.1:0", "--clients", "2"),
                *("--patience", "2", "--stall-timeout", "3", "--run-dir", str(run), *MODEL),
            )
        )
        clients = [
            stack.enter_context(
                launch(
                    *("hetero-client", "--server", server.address, "--cut-layer", str(number + 1)),
                    *("--client-id", f"client-{number}", "--shard", f"{number}/2"),
                    *("--dataset", "digits", "--run-dir", str(tmp_path / f"client-{number}")),
                )
            )
            for number in (1, 2)
        ]
        wait_for(run, "round", round=3)
        clients[1].signal(signal.SIGSTOP)
        wait_for(run, "released", client="client-2")
        wait_for(run, "left", client="client-2", state="STALE")  # its silence has been noticed
        clients[1].signal(signal.SIGCONT)
        for process in (*clients, server):
            assert process.finish().code == 0
    events = read_records(run)
    released = next(e["round"] for e in events if e["event"] == "released")
    assert released < max(
        e["round"] for e in events if e["event"] == "round" and e["client"] == "client-2"
    )
    others = [e["round"] for e in events if e["event"] == "round" and e["client"] == "client-1"]
    assert others == list(range(600)), "nobody else has missed a round"
    assert audit(read_history(run).whole(), read_plan(run)).findings == []
