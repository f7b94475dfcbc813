from __future__ import annotations

import io
import logging
import re
import sys
from types import SimpleNamespace

import pytest

from hetero_client.progress import Progress
from hetero_common.agreement.control import Evaluation, RoundDone
from hetero_common.records import logs

EVALUATION = Evaluation(1, 200, 0.5, 0.75, 0.4, 0.8, 0.25)


class Terminal(io.StringIO):
    """A standard error that somebody looks at."""

    def isatty(self) -> bool:
        return True

    def last_frame(self) -> str:
        """The bar as it was drawn last."""
        lines = re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue()).replace("\r", "\n").splitlines()
        return next(line for line in reversed(lines) if "round " in line)


def watched_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """From here on; pytest puts a standard error of its own in place as each test begins."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return terminal


def test_without_a_terminal_the_last_round_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Progress(3, "board-1") as progress:
        for round_ in range(3):
            progress.step(round_, 0, 1)
            progress.round_done(RoundDone(round_, 1.25, 0.5))
    levels = [record.levelname for record in caplog.records]
    assert levels == ["DEBUG", "DEBUG", "INFO"]  # within ten seconds of the first
    assert caplog.messages[-1] == "training exit loss 1.250, accuracy 50.0%"


def test_rounds_that_take_long_are_lines_each(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    now = [100.0]
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: now[0]))
    progress = Progress(100, "board-1")
    for round_ in range(4):
        now[0] += 6
        progress.round_done(RoundDone(round_, 1.25, 0.5))
    assert len(caplog.records) == 2


def test_an_evaluation_is_always_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Progress(3, "board-1").evaluated(EVALUATION)
    assert caplog.messages == [
        "exit 50.0 %, server 75.0 %, at threshold 0.4: 80.0 % with 25.0 % offloaded, of 200 images"
    ]


def test_on_a_terminal_a_bar_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = watched_on_a_terminal(monkeypatch)
    caplog.set_level(logging.DEBUG)
    with Progress(3, "board-1") as progress:
        progress.step(0, 1, 2)
        progress.round_done(RoundDone(0, 1.25, 0.5))
        progress.evaluating(200)
        progress.round_done(RoundDone(1, 1.125, 0.5))
    shown = terminal.last_frame()
    assert "board-1" in shown
    assert "round 2/3" in shown
    assert "exit loss 1.125, accuracy 50.0%" in shown
    assert caplog.messages == []


def test_a_bar_counts_the_steps_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched_on_a_terminal(monkeypatch)
    with Progress(2, "board-1") as progress:
        progress.round_done(RoundDone(0, 1.25, 0.5))
        progress.step(1, 3, 4)
        progress.evaluating(200)
    shown = terminal.last_frame()
    assert "round 2/2" in shown
    assert "evaluating on 200 images" in shown
