"""One command that starts a run, takes it up after a crash, and serves it when it is over."""

from __future__ import annotations

import json
from pathlib import Path

from hetero_common.records.rundir import MODEL_FILE
from support.chaos_fleet import events, wait_for
from support.commands import SMALL
from support.processes import Launch, free_address

CLIENT = ("--dataset", "digits", "--cut-layer", "2", "--client-id", "board-1")


def test_the_same_command_starts_resumes_and_serves(launch: Launch, tmp_path: Path) -> None:
    run = tmp_path / "run"
    address = free_address()
    command = (
        *("hetero-server", "--listen", address, "--run-dir", str(run), "--or-resume"),
        *("--rounds", "40", "--steps-per-round", "20", "--checkpoint-seconds", "0", *SMALL),
    )
    client_run = tmp_path / "client"
    of_client = ("--server", address, "--run-dir", str(client_run), *CLIENT)
    with launch(*command) as server, launch("hetero-client", *of_client) as client:
        assert server.address == address
        wait_for(run, "round")
        server.kill()
        assert not (run / MODEL_FILE).exists()
        with launch(*command, "--then-serve") as again:
            assert client.finish().code == 0
            # Twice: to train, and behind the table of results, to serve.
            assert again.address == address
            assert f"listening on {address}\n" in iter(again.read_line, "")
            infer = ("--run", str(client_run), "--server", address, "--dataset", "digits")
            with launch("hetero-infer", *infer, "--threshold", "-1", "--output", "json") as asked:
                answers = [json.loads(line) for line in asked.finish().stdout.splitlines()]
    assert {answer["source"] for answer in answers} == {"server"}
    assert len(events(run, "resumed")) == 1
    with launch(*command, "--no-then-serve") as over:
        finished = over.finish()
    assert finished.code == 0
    assert "is over" in finished.stderr
    assert "listening" not in finished.stdout


def test_it_takes_a_run_directory(launch: Launch) -> None:
    with launch("hetero-server", "--or-resume") as server:
        finished = server.finish()
    assert finished.code == 2
    assert "--run-dir" in finished.stderr
