"""hetero-status, against a real server with real clients."""

from __future__ import annotations

import json
from typing import Any

from support.commands import SMALL
from support.processes import Launch

DATA = ("--dataset", "digits")


def test_it_tells_who_takes_part_and_how_far_the_run_is(launch: Launch) -> None:
    flags = (*SMALL, "--clients", "2", "--rounds", "100000", "--steps-per-round", "1")
    with launch("hetero-server", "--listen", "127.0.0.1:0", "--http", "off", *flags) as server:
        of_server = ("--server", server.address)
        with launch("hetero-status", *of_server) as asked:
            waiting = asked.finish()
        assert waiting.code == 0
        assert "tinycnn, mixed, waiting, round 1 of 100000" in waiting.stdout
        clients = [
            launch("hetero-client", *of_server, *DATA, "--cut-layer", cut, "--client-id", name)
            for cut, name in (("2", "board-1"), ("3", "board-2"))
        ]
        with clients[0], clients[1]:
            status: dict[str, Any] = {"round": 0}
            while status["round"] < 3:
                with launch("hetero-status", *of_server, "--output", "json") as asked:
                    status = json.loads(asked.finish().stdout)
            with launch("hetero-status", *of_server) as asked:
                table = asked.finish().stdout
    assert [member["client_id"] for member in status["members"]] == ["board-1", "board-2"]
    assert {member["state"] for member in status["members"]} <= {"TRAINING", "SYNCING"}
    assert all(member["samples"] > 0 for member in status["members"])
    assert all(member["silent_seconds"] is not None for member in status["members"])
    assert all(member["exit_accuracy"] is None for member in status["members"])
    assert status["seconds_left"] > 0
    assert "board-1" in table
    assert "board-2" in table


def test_where_nobody_answers_it_says_so(launch: Launch) -> None:
    with launch("hetero-status", "--server", "127.0.0.1:1") as asked:
        finished = asked.finish()
    assert finished.code == 1
    assert finished.stderr.startswith("hetero-status: the connection to the server failed")
