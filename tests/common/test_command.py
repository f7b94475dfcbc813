from __future__ import annotations

import logging
import sys

import pytest
import torch

from hetero_common.command import run_command, wide_console
from hetero_common.errors import HeteroError, ServerUnreachable, SettingsError
from hetero_common.settings import Settings


def run(*flags: str, error: BaseException | None = None) -> tuple[int, list[Settings]]:
    """The exit code, and the settings that the work was begun with."""
    begun = []

    def work(settings: Settings) -> None:
        begun.append(settings)
        if error is not None:
            raise error

    return run_command("hetero-test", Settings, work, flags), begun


def test_work_begins_with_settings_threads_and_logging_as_asked_for() -> None:
    code, (settings,) = run("--threads", "2", "--log-level", "warning")
    assert (code, settings.threads) == (0, 2)
    assert torch.get_num_threads() == 2
    assert logging.getLogger().level == logging.WARNING


def test_flags_are_the_processs_own_where_none_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["hetero-test", "--device", "cuda"])
    devices: list[str] = []
    assert run_command("hetero-test", Settings, lambda s: devices.append(s.device)) == 0
    assert devices == ["cuda"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("no such data set"), 2),
        (ServerUnreachable("nobody is there"), 1),
        (HeteroError("the disk is full"), 1),
    ],
)
def test_an_error_is_one_sentence_and_a_code(
    error: HeteroError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(error=error)[0] == code
    assert capsys.readouterr().err == f"hetero-test: {error}\n"


def test_bad_settings_start_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--thread", "2") == (2, [])
    assert capsys.readouterr().err.startswith("hetero-test: unknown setting --thread: ")


def test_an_interrupt_has_the_code_of_shells() -> None:
    assert run(error=KeyboardInterrupt())[0] == 130


def test_what_is_not_foreseen_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(error=ZeroDivisionError())


def test_tables_are_as_wide_as_they_need_where_nobody_looks() -> None:
    assert wide_console().width == 140
