"""Lines of a log: who speaks, in which round, as text or as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from hetero_common.records import logs
from hetero_common.settings import Settings

log = logging.getLogger("hetero_test")


@pytest.fixture(autouse=True)
def _nobody_speaks_afterwards() -> Iterator[None]:
    yield
    logs.speak_as("", 0)


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_a_line_says_who_speaks_and_in_which_round(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start_logging("info", "text")
    log.info("loading")
    assert last_line(capsys).endswith(" INFO    loading")
    logs.speak_as("board-1", 120)
    log.info("joining")
    assert last_line(capsys).endswith(" INFO    [board-1] joining")
    logs.enter_round(65)
    log.info("training")
    assert last_line(capsys).endswith(" INFO    [board-1 66/120] training")


def test_as_json_each_line_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start_logging("info", "json")
    logs.speak_as("board-1", 120)
    logs.enter_round(65)
    log.warning("lost the server (%s)", 'it said "no"\nand left')
    line = json.loads(last_line(capsys))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "hetero_test",
        "who": "board-1",
        "round": 65,
        "message": 'lost the server (it said "no"\nand left)',
    }


def test_as_json_a_traceback_is_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start_logging("info", "json")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("fault 1")
    assert "ValueError: why" in json.loads(last_line(capsys))["traceback"]


def test_a_round_has_a_line_at_most_every_ten_seconds_and_the_last_one_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    lines = logs.RoundLines(rounds=100)
    levels = []
    for round_ in range(100):
        now[0] += 1.0
        levels.append(lines.level(round_))
    assert [r for r, level in enumerate(levels) if level == logging.INFO] == [*range(9, 99, 10), 99]
    assert set(levels) == {logging.INFO, logging.DEBUG}


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ({}, "info"),
        ({"quiet": True}, "warning"),
        ({"quiet": True, "log_level": "error"}, "error"),
        ({"verbose": True}, "debug"),
        ({"log_level": "debug"}, "debug"),
    ],
)
def test_quiet_and_verbose_are_short_for_levels(given: dict[str, object], level: str) -> None:
    assert Settings(**given).level() == level  # type: ignore[arg-type]  # settings are of several types


def test_quiet_and_verbose_are_opposites() -> None:
    with pytest.raises(ValueError, match="opposites"):
        Settings(quiet=True, verbose=True)
