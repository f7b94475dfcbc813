"""Answers without a server, and with one that is not there; with one that is: e2e/."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from hetero_client.commands import infer
from hetero_client.data.shard import load_test
from hetero_client.exits.chosen_threshold import Calibration, digest
from hetero_client.exits.thresholds import Target
from support.finished_device import CLASSES, PLAN, ServedDevice, finished_device
from support.pictures import encode, noise


@dataclass(frozen=True)
class Output:
    """What a command has said, and its exit code."""

    code: int
    stdout: str
    stderr: str


Infer = Callable[..., Output]
"""(*flags of hetero-infer) -> what it has said."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    finished_device(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def answer(run: Path, capsys: pytest.CaptureFixture[str]) -> Infer:
    """Run hetero-infer where no server listens."""

    def call(*flags: str) -> Output:
        capsys.readouterr()
        code = infer.main(["--run", str(run), "--server", "127.0.0.1:1", *flags])
        return Output(code, *capsys.readouterr())

    return call


def calibrated(run: Path, threshold: float) -> Calibration:
    """Keep a threshold as if it had been chosen."""
    images = 10
    exit_ = torch.softmax(torch.arange(float(images * 10)).view(images, 10), dim=1)
    server, labels = exit_.flip(1), torch.zeros(images, dtype=torch.int64)
    chosen = Calibration.of(
        exit_, server, labels, Target("offload", 1.0), source="a test", model=digest(run)
    )
    kept = chosen.model_copy(update={"threshold": threshold})
    kept.write(run)
    return kept


def test_image_files_are_answered_by_the_exit_where_it_may(answer: Infer, tmp_path: Path) -> None:
    files = [tmp_path / "cat.png", tmp_path / "dog.png"]
    for seed, file in enumerate(files):
        file.write_bytes(encode(noise(8, 8, 3, seed=seed)))
    said = answer("--threshold", "1", "--output", "json", *map(str, files))
    assert said.code == 0
    answers = [json.loads(line) for line in said.stdout.splitlines()]
    assert [each["image"] for each in answers] == [str(file) for file in files]
    assert {each["source"] for each in answers} == {"exit"}
    assert {each["class"] for each in answers} <= set(CLASSES)
    assert all(0 <= each["uncertainty"] <= 1 for each in answers)


def test_answers_are_a_table(answer: Infer, tmp_path: Path) -> None:
    file = tmp_path / "cat.png"
    file.write_bytes(encode(noise(8, 8, 3)))
    said = answer("--threshold", "1", str(file))
    assert "answered by" in said.stdout
    assert said.stdout.count("exit") == 1


def test_a_test_split_ends_with_the_accuracy(answer: Infer, run: Path) -> None:
    said = answer("--threshold", "1", "--dataset", "digits", "--samples", "50")
    model = finished_device(run)
    test = load_test("digits", Path("data"), PLAN).first(50)
    right = (model.infer(test.images)[1].argmax(dim=1) == test.labels).double().mean()
    assert said.stdout == (
        f"accuracy {float(right):.2%} of 50 images; exit 100.0%, server 0.0%, degraded 0.0%\n"
    )


def test_without_a_server_the_exit_answers_what_it_is_not_sure_of(answer: Infer) -> None:
    said = answer("--threshold", "-1", "--dataset", "digits", "--samples", "5")
    assert said.code == 0
    assert said.stdout.endswith("exit 0.0%, server 0.0%, degraded 100.0%\n")


def test_a_threshold_that_was_chosen_is_kept_to_and_said(answer: Infer, run: Path) -> None:
    calibrated(run, threshold=1.0)
    said = answer("--dataset", "digits", "--samples", "5", "--output", "json")
    assert {json.loads(line)["source"] for line in said.stdout.splitlines()} == {"exit"}
    assert said.stderr.splitlines()[-1] == (
        "threshold 1, chosen by --calibrate for at most 100% offloaded"
    )


def test_a_threshold_is_not_taken_for_another_criterion(answer: Infer, run: Path) -> None:
    calibrated(run, threshold=1.0)
    said = answer("--dataset", "digits", "--samples", "5", "--criterion", "confidence")
    assert said.code == 2
    assert f"the threshold of {run} was chosen for --criterion entropy" in said.stderr


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_curve_goes_from_everything_offloaded_to_nothing(
    output: str, answer: Infer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer, "TrainedDevice", ServedDevice)
    said = answer("--curve", "--dataset", "digits", "--samples", "40", "--output", output)
    assert said.code == 0
    if output == "table":
        assert "Accuracy versus offload" in said.stdout
        return
    points = [json.loads(line) for line in said.stdout.splitlines()]
    assert (points[0]["offload_share"], points[-1]["offload_share"]) == (1.0, 0.0)
    thresholds = [point["threshold"] for point in points]
    assert thresholds == sorted(thresholds)


def test_a_file_that_is_no_image_is_named(answer: Infer, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    said = answer("--threshold", "1", str(tmp_path / "notes.txt"))
    assert (said.code, said.stdout) == (2, "")
    assert f"{tmp_path / 'notes.txt'} cannot be read as an image" in said.stderr
    said = answer("--threshold", "1", str(tmp_path / "nowhere.png"))
    assert f"{tmp_path / 'nowhere.png'} cannot be read: No such file" in said.stderr


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "give image files, or --dataset to answer a test split, but not both"),
        (("--dataset", "digits", "cat.png"), "--dataset to answer a test split, but not both"),
        (("--curve", "cat.png"), "--curve needs labels: give a --dataset"),
        (("--calibrate",), "--calibrate takes exactly one of --offload, --accuracy and --max-loss"),
        (("--calibrate", "--offload", "0.1", "--samples", "5"), "takes all images that there are"),
        (("--offload", "0.1", "cat.png"), "are for --calibrate: add it"),
        (("--confidence", "0.9", "cat.png"), "--confidence is that of --max-loss"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    flags: tuple[str, ...], sentence: str, answer: Infer
) -> None:
    said = answer(*flags)
    assert (said.code, said.stdout) == (2, "")
    assert sentence in said.stderr


def test_images_of_any_size_are_taken(answer: Infer, tmp_path: Path) -> None:
    Image.new("RGB", (200, 33)).save(tmp_path / "wide.jpg")
    assert answer("--threshold", "1", str(tmp_path / "wide.jpg")).code == 0
