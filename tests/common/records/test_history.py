from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hetero_common.errors import SettingsError
from hetero_common.records.events import Started, WholeRound
from hetero_common.records.history import Recorded, last_run, read_history, surviving
from hetero_common.records.rundir import METRICS_FILE
from hetero_lab.reading.reader import read_run
from support.events import recorded
from support.sample_runs import joined, write_run

CLIENT = {"cut_layer": 3, "dataset": "digits"}


def test_a_directory_that_was_used_again_holds_its_last_run(tmp_path: Path) -> None:
    first = [joined("old", run="one"), {"event": "round", "round": 0, "exit_accuracy": 0.1}]
    second = [joined("new", run="two"), {"event": "round", "round": 0, "exit_accuracy": 0.2}]
    (client,) = read_run(write_run(tmp_path, [*first, *second], CLIENT)).participants
    assert (client.name, client.training[0].exit) == ("new", 0.2)


def history(run: Path, *lines: str) -> list[Recorded]:
    (run / METRICS_FILE).write_text("".join(lines))
    return list(read_history(run).whole())


STARTED = '{"event": "started", "time": 1.0, "run": "one"}\n'
JOINED = '{"event": "joined", "time": 1.0, "run": "one", "client": "a", "cut_layer": 2}\n'
ROUND = '{"event": "round", "time": 2.0, "round": 0, "loss": 0.5}\n'


def test_every_line_is_an_event(tmp_path: Path) -> None:
    assert history(tmp_path, STARTED, ROUND) == [
        Recorded(1.0, Started("one")),
        Recorded(2.0, WholeRound(0, 0.5)),
    ]


def test_a_kind_of_a_later_version_is_left_out(tmp_path: Path) -> None:
    later = '{"event": "not known yet", "time": 1.5}\n'
    assert history(tmp_path, STARTED, later, ROUND) == history(tmp_path, STARTED, ROUND)


def test_what_cannot_be_is_damage_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text(
        STARTED + ROUND.replace('"round": 0', '"round": -1') + ROUND
    )
    found = read_history(tmp_path)
    assert [each.event for each in found.recorded] == [Started("one"), WholeRound(0, 0.5)]
    with pytest.raises(SettingsError, match="an event lacks what docs/runs"):
        found.whole()


def test_a_last_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    for length in range(len(ROUND)):
        assert len(history(tmp_path, STARTED, ROUND[:length])) == 1, length


@pytest.mark.parametrize("begins", [STARTED, JOINED])
def test_a_line_that_was_cut_short_before_a_new_process_is_left_out(
    begins: str, tmp_path: Path
) -> None:
    events = history(tmp_path, STARTED, ROUND, '{"event": "rou\n', begins, ROUND)
    assert [each.event.kind for each in events[:2]] == ["started", "round"]
    assert len(events) == 4


@pytest.mark.parametrize(
    "bad", ['{"event": "rou\n', "[]\n", '{"event": 7}\n', "\n", '{"round": 1}\n']
)
def test_any_other_damage_says_in_which_line(bad: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"line 2 of .*metrics\.jsonl is damaged"):
        history(tmp_path, STARTED, bad, ROUND)
    with pytest.raises(SettingsError, match="line 2 of"):
        history(tmp_path, STARTED, bad)


def test_two_damaged_lines_are_no_kill(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="line 2 of"):
        history(tmp_path, STARTED, '{"event": "rou\n', '{"event": "rou\n', STARTED)


def test_a_directory_without_metrics_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"metrics\.jsonl cannot be read"):
        read_history(tmp_path)
    (tmp_path / METRICS_FILE).write_bytes(b"\xff\n")
    with pytest.raises(SettingsError, match=r"metrics\.jsonl cannot be read"):
        read_history(tmp_path)


def test_processes_of_one_run_are_one_run() -> None:
    lines: list[dict[str, Any]] = [
        {"event": "started", "run": "one"},
        {"event": "round", "round": 0, "loss": 0.5},
        {"event": "started", "run": "two"},
        {"event": "round", "round": 1, "loss": 0.5},
        {"event": "started", "run": "two"},
        {"event": "joined", "client": "a", "cut_layer": 1},  # a server's, which names no run
    ]
    events = recorded(lines)
    assert last_run(events) == events[2:]
    assert last_run(events[:2]) == events[:2]
    assert last_run([]) == []


def test_what_a_resumed_server_had_recorded_of_later_rounds_does_not_count() -> None:
    lines: list[dict[str, Any]] = [
        *({"event": "round", "round": r, "client": "a", "applied": "0"} for r in range(4)),
        {"event": "released", "round": 3, "client": "a", "why": "gone"},
        {"event": "returned", "round": 3, "client": "a"},
        {"event": "resumed", "round": 1},
        {"event": "round", "round": 2, "client": "a", "applied": "0"},
    ]
    left = [each.event for each in surviving(recorded(lines))]
    told = [(event.kind, getattr(event, "round", None)) for event in left]
    assert told == [("round", 0), ("round", 1), ("returned", 3), ("resumed", 1), ("round", 2)]
