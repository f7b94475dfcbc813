from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hetero_client.exits.chosen_threshold import (
    CALIBRATION_FILE,
    Calibration,
    digest,
    read_calibration,
)
from hetero_client.exits.rule import Answers
from hetero_client.exits.thresholds import Target
from hetero_common.errors import SettingsError
from hetero_common.records.rundir import MODEL_FILE

HALF = Target("offload", 0.5)


def surest_first(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities of exit and server over two classes, and labels.

    The exit's confidence falls from image to image; its surer half is right. The server is always
    right and 90 % sure.
    """
    confidence = torch.linspace(0.98, 0.55, count, dtype=torch.float64)
    exit_ = torch.stack([confidence, 1 - confidence], dim=1)
    labels = (torch.arange(count) >= count // 2).long()
    server = torch.full((count, 2), 0.1, dtype=torch.float64)
    server[torch.arange(count), labels] = 0.9
    return exit_, server, labels


def calibrated(target: Target, count: int = 20, model: str = "") -> Calibration:
    return Calibration.of(*surest_first(count), target, source="a test", model=model)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / MODEL_FILE).write_bytes(b"weights")
    return tmp_path


def test_a_calibration_says_what_its_threshold_is_worth() -> None:
    exit_, server, labels = surest_first(20)
    calibration = calibrated(HALF)
    answers = Answers.of(exit_, server, labels)
    assert calibration.threshold == answers.uncertainty[9].item()
    assert (calibration.exit_accuracy, calibration.server_accuracy) == (0.5, 1.0)
    assert (calibration.accuracy, calibration.offload_share) == (1.0, 0.5)
    assert (calibration.lost_share, calibration.lost_at_most) == (0.0, None)
    assert (calibration.images, calibration.source) == (20, "a test")
    assert calibration.exit_auroc == 1.0
    assert calibration.server_calibration_error == pytest.approx(0.1)
    assert 0.25 < calibration.exit_calibration_error < 0.35


def test_a_bound_on_the_loss_comes_with_the_loss() -> None:
    calibration = calibrated(Target("max-loss", 0.2, 0.9), 100)
    assert 0 < calibration.lost_share < 0.2
    assert calibration.lost_at_most is not None
    assert calibration.lost_share < calibration.lost_at_most <= 0.2
    assert calibration.accuracy == pytest.approx(1 - calibration.lost_share)


def test_what_is_not_answered_here_is_lost_with_certainty_by_nobody() -> None:
    calibration = calibrated(Target("max-loss", 0.0, 0.9))
    assert (calibration.threshold, calibration.offload_share) == (-1.0, 1.0)
    assert (calibration.lost_share, calibration.lost_at_most) == (0.0, 0.0)


def test_an_exit_that_is_always_right_has_no_ranking() -> None:
    exit_, server, _ = surest_first(6)
    labels = torch.zeros(6).long()
    calibration = Calibration.of(exit_, server, labels, HALF, source="a test", model="")
    assert calibration.exit_auroc is None


def test_a_calibration_is_kept_and_found_again_to_the_last_bit(run: Path) -> None:
    assert read_calibration(run) is None
    for target in (HALF, Target("accuracy", 0.9), Target("max-loss", 0.2, 0.9)):
        calibration = calibrated(target, model=digest(run))
        calibration.write(run)
        assert read_calibration(run) == calibration
    assert {path.name for path in run.iterdir()} == {MODEL_FILE, CALIBRATION_FILE}


def test_a_calibration_is_not_used_for_other_weights(run: Path) -> None:
    calibrated(HALF, model=digest(run)).write(run)
    (run / MODEL_FILE).write_bytes(b"weights of a later training")
    with pytest.raises(SettingsError) as refused:
        read_calibration(run)
    assert str(refused.value) == (
        f"{run / CALIBRATION_FILE} is of other weights than model.safetensors: run hetero-infer "
        "--calibrate again, or give --threshold"
    )


@pytest.mark.parametrize("content", ["", "{", "{}", '{"threshold": 0.5}', "[]"])
def test_a_damaged_calibration_is_named(content: str, run: Path) -> None:
    (run / CALIBRATION_FILE).write_text(content)
    with pytest.raises(SettingsError, match=r"calibration.json cannot be read: run hetero-infer"):
        read_calibration(run)


def test_a_run_that_can_not_be_written_is_named(run: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing/calibration.json cannot be written: No such"):
        calibrated(HALF).write(run / "missing")
