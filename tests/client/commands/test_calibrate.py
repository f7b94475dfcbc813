"""Choosing a threshold, with a server in this process; with a real one: e2e/test_calibrate.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hetero_client.commands.calibrate import calibrate
from hetero_client.exits.chosen_threshold import CALIBRATION_FILE, digest, read_calibration
from hetero_client.settings import InferenceSettings
from hetero_common.errors import SettingsError
from hetero_common.settings import load
from support.finished_device import ServedDevice, finished_device
from support.pictures import encode, noise

HELD_OUT = ("--shard", "1/4", "--validation", "0.25")
IMAGES = 90  # a quarter of a quarter of 1,433


@pytest.fixture
def run(tmp_path: Path) -> Path:
    finished_device(tmp_path / "run", *HELD_OUT)
    return tmp_path / "run"


def calibrated(run: Path, *flags: str) -> None:
    settings = load(InferenceSettings, ["--run", str(run), "--calibrate", *flags], "hetero-infer")
    calibrate(settings, ServedDevice(settings))


def test_what_is_printed_is_what_is_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrated(run, "--offload", "0.3", "--output", "json")
    printed = capsys.readouterr()
    kept = read_calibration(run)
    assert kept is not None
    assert json.loads(printed.out) == kept.model_dump(mode="json")
    assert (kept.images, kept.source) == (IMAGES, "held out of shard 1/4 of digits")
    assert kept.model == digest(run)
    assert 0.3 - 1 / IMAGES < kept.offload_share <= 0.3
    assert printed.err == (
        f"kept in {run / CALIBRATION_FILE}: hetero-infer answers with it from now on\n"
    )


def test_a_table_has_a_row_for_each_measure(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrated(run, "--offload", "0.3", "--criterion", "confidence")
    shown = capsys.readouterr().out
    kept = read_calibration(run)
    assert kept is not None
    rows = {
        name.strip(): value.strip()
        for name, value in (line.split("│")[1:3] for line in shown.splitlines() if "│" in line)
    }
    assert rows["chosen for"] == "at most 30% offloaded"
    assert rows["accuracy of the server"] == f"{kept.server_accuracy:.2%}"
    assert rows["lost at most"] == "-"
    assert "AUROC of the confidence" in rows
    assert len(rows) == 12


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        ("0", "no number of images can show that none is lost"),
        ("0.001", f"{IMAGES} images cannot show it, 2995 can if none of them is lost"),
    ],
)
def test_a_loss_that_cannot_be_shown_offloads_everything_and_says_why(
    loss: str, why: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrated(run, "--max-loss", loss)
    kept = read_calibration(run)
    assert kept is not None
    assert (kept.threshold, kept.offload_share, kept.lost_at_most) == (-1.0, 1.0, 0.0)
    assert f"everything is offloaded: {why}" in capsys.readouterr().out


def test_labeled_images_of_a_folder_do_as_well(run: Path, tmp_path: Path) -> None:
    for label in range(10):
        file = tmp_path / "pictures" / "validation" / str(label) / "1.png"
        file.parent.mkdir(parents=True)
        file.write_bytes(encode(noise(8, 8, 3, seed=label)))
    folder = f"folder:{tmp_path / 'pictures'}"
    calibrated(run, "--offload", "0.5", "--dataset", folder)
    kept = read_calibration(run)
    assert kept is not None
    assert (kept.images, kept.source) == (10, f"validation images of {folder}")


def test_a_target_that_is_out_of_reach_keeps_nothing(run: Path) -> None:
    with pytest.raises(SettingsError, match="no threshold gives an accuracy of 1"):
        calibrated(run, "--accuracy", "1")
    assert not (run / CALIBRATION_FILE).exists()
