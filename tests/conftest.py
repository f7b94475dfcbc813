"""What all tests share: a process that our commands may run in, and a simulator.

Commands in this process (`main([...])`) configure logging and torch's threads; whatever they do to
them is undone after each test. Commands in processes of their own: e2e/conftest.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# A machine that is busy with something else is no failure of a property.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

Simulate = Callable[..., Path]
"""(*flags of hetero-sim) -> the run directory it has left."""


@contextlib.contextmanager
def logging_restored() -> Iterator[None]:
    """Log as before once the block is left."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """One thread, as each of our commands has by default; logging as pytest has set it up."""
    torch.set_num_threads(1)
    with logging_restored():
        yield


@pytest.fixture
def unset_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of this machine's environment, and an empty directory to work in."""
    for variable in os.environ:
        if variable.upper().startswith("HETERO_"):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def simulate(tmp_path_factory: pytest.TempPathFactory) -> Simulate:
    """Run hetero-sim in this process."""
    from hetero_lab.__main__ import main

    def run(*flags: str) -> Path:
        run_dir = tmp_path_factory.mktemp("simulation") / "run"
        with logging_restored():
            assert main([*flags, "--run-dir", str(run_dir)]) == 0
        return run_dir

    return run
