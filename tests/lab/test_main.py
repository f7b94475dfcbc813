"""hetero-sim around its methods: where a run is kept, and what is said of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from hetero_common.records.checkpoints import CHECKPOINTS
from hetero_common.records.history import read_records
from hetero_common.records.rundir import METRICS_FILE, PLAN_FILE, SETTINGS_FILE
from hetero_common.settings import load
from hetero_common.version import __version__
from hetero_lab import __main__ as hetero_sim
from hetero_lab.method import METHODS, Method
from hetero_lab.settings import SimulationSettings
from lab.test_simulation import SMALL

QUICK = (*SMALL, "--method", "centralized", "--rounds", "1", "--steps-per-round", "1")

pytestmark = pytest.mark.usefixtures("unset_settings")


def test_a_run_is_kept_with_its_settings_and_its_plan() -> None:
    assert hetero_sim.main([*QUICK, "--run-dir", "run"]) == 0
    run = Path("run")
    assert {SETTINGS_FILE, PLAN_FILE, METRICS_FILE} <= {path.name for path in run.iterdir()}
    again = load(SimulationSettings, ["--config", str(run / SETTINGS_FILE)], "hetero-sim")
    assert (again.method, again.rounds, again.steps_per_round) == ("centralized", 1, 1)
    started = read_records(run)[0]
    assert (started["event"], started["version"]) == ("started", __version__)


def test_without_a_directory_it_makes_one_below_runs() -> None:
    assert hetero_sim.main(QUICK) == 0
    (run,) = Path("runs").iterdir()
    assert run.name.startswith("sim-")


def test_a_finished_run_keeps_no_checkpoints() -> None:
    (Path("run") / CHECKPOINTS).mkdir(parents=True)
    assert hetero_sim.main([*QUICK, "--run-dir", "run"]) == 0
    assert not (Path("run") / CHECKPOINTS).exists()


def test_an_evaluation_is_a_line_without_what_is_for_reports(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetero_common.command.start_logging", lambda *_: None)
    caplog.set_level(logging.INFO)
    assert hetero_sim.main([*QUICK, "--run-dir", "run"]) == 0
    (line,) = [message for message in caplog.messages if message.startswith("evaluation ")]
    (event,) = [event for event in read_records(Path("run")) if event["event"] == "evaluation"]
    assert f"'accuracy': {round(event['accuracy'], 4)}" in line
    assert "class_accuracy" in event and "class_accuracy" not in line


def test_a_method_makes_its_own_settings_and_they_are_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert hetero_sim.main([*SMALL, "--method", "splitfed-v1", "--run-dir", "run"]) == 2
    assert not Path("run").exists()
    flags = ("--method", "splitfed-v1", "--cut-layers", "2", "--rounds", "1")
    assert hetero_sim.main([*SMALL, *flags, "--clients", "2", "--run-dir", "run"]) == 0
    kept = load(SimulationSettings, ["--config", f"run/{SETTINGS_FILE}"], "hetero-sim")
    assert (kept.method, kept.strategy, kept.exit_weight) == ("splitfed-v1", "averaging", 0.0)


def test_who_stops_it_hears_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    entry = replace(METHODS.entry("centralized"), thing=Method(lambda settings: stopped))
    monkeypatch.setitem(METHODS._declared, "centralized", entry)
    assert hetero_sim.main([*QUICK, "--run-dir", "run"]) == 130
    assert "stopped: go on later with --resume run" in capsys.readouterr().err
