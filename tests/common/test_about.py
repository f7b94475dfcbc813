"""Version and completions, which every command has."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from hetero_common.command import run_command
from hetero_common.settings import Settings
from hetero_common.version import __version__


def say(*flags: str) -> int:
    def work(settings: Settings) -> None:
        raise AssertionError("nothing is to be done")

    return run_command("hetero-test", Settings, work, flags)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert say("--version") == 0
    assert capsys.readouterr().out == f"hetero-test {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completions_know_the_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert say("--print-completion", shell) == 0
    script = capsys.readouterr().out
    assert "log-level" in script
    assert "print-completion" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert say("--print-completion", "bash") == 0
    script = capsys.readouterr().out + (
        "\nCOMP_WORDS=(hetero-test --log-l); COMP_CWORD=1\n"
        'complete -p hetero-test >/dev/null; _shtab_hetero_test; echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--log-level"]


def test_a_shell_that_there_is_no_completion_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert say("--print-completion", "fish") == 2
    assert "bash, zsh, tcsh" in capsys.readouterr().err


def test_without_shtab_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert say("--print-completion", "bash") == 2
    assert "hetero-splitee[completion]" in capsys.readouterr().err
