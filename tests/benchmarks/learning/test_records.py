"""Measured results, which stay those of their rows whatever settings are added."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pydantic import create_model

from hetero_common.errors import SettingsError
from hetero_common.records.rundir import SETTINGS_FILE
from hetero_common.settings import as_yaml, load
from hetero_lab.methods import METHODS
from hetero_lab.reading.reader import read_run
from hetero_lab.resuming import decisive
from hetero_lab.settings import SimulationSettings
from lab.test_simulation import SMALL

if TYPE_CHECKING:
    from conftest import Simulate

LEARNING = Path(__file__).parents[3] / "benchmarks" / "learning"
MEASURED = sorted((LEARNING / "measured").glob("*.jsonl"))
sys.path.append(str(LEARNING))
import records  # type: ignore[import-not-found]  # noqa: E402 - a script of benchmarks/learning


def settings_of(*flags: str) -> dict[str, Any]:
    given = load(SimulationSettings, flags, "hetero-sim")
    return decisive(as_yaml(METHODS[given.method].adapt(given)))


@pytest.fixture(scope="module")
def measured(simulate: Simulate) -> Path:
    return simulate(*SMALL, "--clients", "2", "--eval-every", "1")


def test_a_record_tells_what_the_run_directory_does(measured: Path, tmp_path: Path) -> None:
    kept = records.Records(tmp_path / "cifar10-small.jsonl")
    kept.keep(records.Record.of("default, dirichlet 0.1", 7, measured))
    record = records.Records(tmp_path / "cifar10-small.jsonl").find("default, dirichlet 0.1", 7)
    assert record.id == "default-dirichlet-0.1/seed-7"
    run, whole = record.run("cifar10-small"), read_run(measured)
    assert run.name == "cifar10-small/default, dirichlet 0.1 seed 7"
    for name in ("plan", "method", "source", "incidents", "versions", "is_finished", "notes"):
        assert getattr(run, name) == getattr(whole, name)
    assert [each.last for each in run.participants] == [each.last for each in whole.participants]


def test_a_row_that_is_measured_again_has_the_new_record(measured: Path, tmp_path: Path) -> None:
    kept = records.Records(tmp_path / "records.jsonl")
    record = records.Record.of("default", 0, measured)
    kept.keep(record)
    kept.keep(records.Record.of("default", 1, measured))
    kept.keep(dataclasses.replace(record, events=record.events[:1]))
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["default/seed-0", "default/seed-1"]
    assert len(json.loads(lines[0])["events"]) == 1


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.stem)
def test_a_setting_that_is_added_leaves_all_records_what_they_are(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of tomorrow knows a setting more; what was measured has run with its default."""
    later = create_model("Later", __base__=SimulationSettings, warmup=(int, 0))
    monkeypatch.setattr(records, "SimulationSettings", later)
    kept = records.Records(file)
    assert kept._records
    for record in kept._records.values():
        of_now = {**record.settings, "warmup": 0}
        assert record.difference(of_now) is None
        assert record.difference({**of_now, "warmup": 3}) == (
            "--warmup was None when it was measured, and is 3 now"
        )


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.stem)
def test_a_setting_that_a_record_lacks_has_its_default(file: Path) -> None:
    for record in records.Records(file)._records.values():
        held = {name: value for name, value in record.settings.items() if name != "criterion"}
        older = dataclasses.replace(record, settings=held)
        assert older.difference(record.settings) is None
        assert older.run("older").participants == record.run("older").participants


def test_a_setting_that_matters_is_named(measured: Path) -> None:
    record = records.Record.of("default", 0, measured)
    held = yaml.safe_load((measured / SETTINGS_FILE).read_text())
    changed = {**record.settings, "batch_size": held["batch_size"] + 1}
    assert record.difference(record.settings) is None
    assert record.difference(changed) == (
        f"--batch-size was {held['batch_size']} when it was measured, "
        f"and is {held['batch_size'] + 1} now"
    )


def test_a_setting_that_nobody_knows_any_more_is_named(measured: Path) -> None:
    record = records.Record.of("default", 0, measured)
    odd = dataclasses.replace(record, settings={**record.settings, "gone_by_now": 1})
    with pytest.raises(SettingsError, match="setting gone-by-now is of another version"):
        odd.difference(record.settings)
