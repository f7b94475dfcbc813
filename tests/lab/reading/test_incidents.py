from __future__ import annotations

from pathlib import Path
from typing import Any

from hetero_lab.reading.incidents import read_incidents
from hetero_lab.reading.reader import read_run
from support.events import recorded
from support.sample_runs import joined, round_event, write_run


def test_incidents_are_told_in_words(tmp_path: Path) -> None:
    far = {"statistic": "gradient_norm", "value": 1234.5, "usual": 2.0}
    events = [
        joined(),
        round_event(0),
        {"event": "checkpoint", "round": 0, "failed": None},
        {"event": "checkpoint", "round": 1, "failed": "No space left on device"},
        {"event": "released", "client": "a", "round": 1, "why": "gone for 60 s"},
        {"event": "left_out", "client": "a", "round": 1, **far},
        {"event": "quarantined", "client": "a", "round": 1, "step": 3, **far},
        {"event": "left", "client": "a", "round": 1, "state": "EVICTED"},
        {"event": "left", "client": "b", "round": 1, "state": "LEFT"},
        {"event": "left", "client": "c", "round": 1, "state": "STALE"},
        {"event": "resumed", "round": -1},
        {"event": "rejoined", "base": None},
    ]
    run = read_run(write_run(tmp_path, [*events, round_event(0)]))
    assert [incident.what for incident in run.incidents] == [
        "the run could not be saved: No space left on device",
        "round 2 goes on without this client: gone for 60 s",
        "what this client pushed is in no average of round 2: gradient norm of 1.23e+03 where 2 is "
        "usual",
        "this client was sent away for the rest of the run: gradient norm of 1.23e+03 where 2 is "
        "usual",
        "this client was sent away, or a newer process has its id",
        "this client lost its connection, and may come back",
        "the server was started again and went on from its beginning",
        "this client lost the server, was connected again and started anew",
    ]


def test_an_incident_says_when_where_and_of_whom() -> None:
    events: list[dict[str, Any]] = [
        {"event": "released", "time": 107.5, "client": "a", "round": 3, "why": "gone"},
        {"event": "resumed", "time": 90.0, "round": 2},  # by a clock that was set back
    ]
    first, second = read_incidents(recorded(events), started=100.0)
    assert (first.seconds, first.round, first.client) == (7.5, 3, "a")
    assert (second.seconds, second.round, second.client) == (0.0, 2, None)
    assert second.what == "the server was started again and went on from the end of round 3"


def test_what_happens_in_every_run_is_none() -> None:
    ordinary: list[dict[str, Any]] = [
        {"event": "started", "run": "r"},
        {"event": "joined", "client": "a", "cut_layer": 1},
        {"event": "round", "client": "a", "round": 0},
        {"event": "left", "client": "a", "round": 0, "state": "LEFT"},
        {"event": "checkpoint", "round": 0, "failed": None},
        {"event": "finished", "rounds": 1},
    ]
    assert read_incidents(recorded(ordinary), 0.0) == ()
