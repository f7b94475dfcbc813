"""A version that knows a setting more goes on with what a version before it has left.

What it left lacks the setting: here it is taken out of the files, where it had its default.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from hetero_common.records.history import read_history
from hetero_common.records.rundir import MODEL_FILE, PLAN_FILE, SETTINGS_FILE, RunDir, read_plan
from hetero_lab.__main__ import main
from lab.test_simulation import SMALL

if TYPE_CHECKING:
    from conftest import Simulate
    from support.processes import Launch

PLAN = ("--model", "tinycnn", "--width", "4", "--image-size", "8", "--rounds", "300")
ADDED_SINCE = ("weights_wire", "exit_head", "criterion", "quarantine")
"""Settings of the agreement, of exits and of the server; some are unknown to one of the files."""


def forget(run: Path) -> None:
    """Leave a run directory as a version would that did not know these settings."""
    plan = json.loads((run / PLAN_FILE).read_text())
    settings = yaml.safe_load((run / SETTINGS_FILE).read_text())
    for name in ADDED_SINCE:
        plan.pop(name, None)
        settings.pop(name, None)
    (run / PLAN_FILE).write_text(json.dumps(plan))
    (run / SETTINGS_FILE).write_text(yaml.safe_dump(settings, sort_keys=False))


def test_a_server_goes_on(launch: Launch, tmp_path: Path) -> None:
    run = tmp_path / "run"
    server = ("--listen", "127.0.0.1:0", "--http", "off", "--checkpoint-seconds", "0")
    with launch("hetero-server", *PLAN, *server, "--run-dir", str(run)) as process:
        own = ("--cut-layer", "2", "--dataset", "digits", "--connect-timeout", "60")
        with launch("hetero-client", "--server", process.address, *own) as client:
            while not (run / "checkpoints").exists() or len(read_history(run).recorded) < 20:
                assert process._process.poll() is None
            process.signal(signal.SIGTERM)
            assert process.finish().code == 0
            forget(run)
            with launch("hetero-server", "--resume", str(run), "--rounds", "300") as resumed:
                assert client.finish().code == 0
                assert resumed.finish().code == 0
    assert (run / MODEL_FILE).exists()
    assert read_plan(run).exit_head == "deep"


class Killed(Exception):
    """No handler of ours takes it."""


def test_a_simulation_goes_on(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*SMALL, "--clients", "2", "--checkpoint-seconds", "0")
    undisturbed = simulate(*flags)
    record, left = RunDir.record, [3]

    def kill(run_dir: RunDir, event: object) -> None:
        record(run_dir, event)  # type: ignore[arg-type]  # whatever it is
        left[0] -= getattr(event, "kind", "") == "round"
        if left[0] == 0:
            left[0] = -1
            raise Killed

    monkeypatch.setattr(RunDir, "record", kill)
    run = tmp_path / "run"
    with pytest.raises(Killed):
        main([*flags, "--run-dir", str(run)])
    forget(run)
    assert main([*flags, "--resume", str(run)]) == 0
    ours, theirs = ((each / "client-1.safetensors").read_bytes() for each in (run, undisturbed))
    assert ours == theirs


def test_what_is_changed_is_refused_all_the_same(
    simulate: Simulate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = simulate(*SMALL, "--clients", "2")
    (run / "checkpoints").mkdir()
    forget(run)
    capsys.readouterr()
    assert main([*SMALL, "--clients", "2", "--exit-head", "linear", "--resume", str(run)]) == 2
    assert capsys.readouterr().err == (
        f"hetero-sim: --exit-head is deep in the run of {run} and cannot be changed: "
        "leave --exit-head out\n"
    )
