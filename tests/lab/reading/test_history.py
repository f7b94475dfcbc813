from __future__ import annotations

from pathlib import Path

import pytest

from hetero_common.errors import SettingsError
from hetero_common.records.rundir import METRICS_FILE
from hetero_lab.reading.history import Event, last_run, read_history
from hetero_lab.reading.reader import read_run
from support.sample_runs import joined, write_run

CLIENT = {"cut_layer": 3, "dataset": "digits"}


def test_a_directory_that_was_used_again_holds_its_last_run(tmp_path: Path) -> None:
    first = [joined("old", run="one"), {"event": "round", "round": 0, "exit_accuracy": 0.1}]
    second = [joined("new", run="two"), {"event": "round", "round": 0, "exit_accuracy": 0.2}]
    (client,) = read_run(write_run(tmp_path, [*first, *second], CLIENT)).participants
    assert (client.name, client.training[0].exit) == ("new", 0.2)


def history(run: Path, *lines: str) -> list[Event]:
    (run / METRICS_FILE).write_text("".join(lines))
    return read_history(run)


STARTED = '{"event": "started", "run": "one"}\n'
ROUND = '{"event": "round", "round": 0}\n'


def test_every_line_is_an_event(tmp_path: Path) -> None:
    assert history(tmp_path, STARTED, ROUND) == [
        {"event": "started", "run": "one"},
        {"event": "round", "round": 0},
    ]


def test_a_last_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    for length in range(len(ROUND)):
        assert len(history(tmp_path, STARTED, ROUND[:length])) == 1, length


@pytest.mark.parametrize("begins", [STARTED, '{"event": "joined", "run": "one", "client": "a"}\n'])
def test_a_line_that_was_cut_short_before_a_new_process_is_left_out(
    begins: str, tmp_path: Path
) -> None:
    events = history(tmp_path, STARTED, ROUND, '{"event": "rou\n', begins, ROUND)
    assert [event["event"] for event in events[:2]] == ["started", "round"]
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
    events: list[Event] = [
        {"event": "started", "run": "one"},
        {"event": "round", "round": 0},
        {"event": "started", "run": "two"},
        {"event": "round", "round": 1},
        {"event": "started", "run": "two"},
        {"event": "joined", "client": "a"},  # a server's, which names no run
    ]
    assert last_run(events) == events[2:]
    assert last_run(events[:2]) == events[:2]
    assert last_run([]) == []
