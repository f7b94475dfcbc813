"""From training with held-out images to answers at the threshold that was chosen on them."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from e2e.test_bad_input import sentence_of
from hetero_client.commands.infer import main as infer_main
from hetero_client.commands.validation_images import TrainedOn
from hetero_client.data.shard import load_validation
from hetero_client.exits.chosen_threshold import CALIBRATION_FILE
from hetero_common.records.history import read_records
from hetero_common.records.rundir import MODEL_FILE, read_plan

if TYPE_CHECKING:
    from e2e.conftest import Launch

HELD_OUT = 215  # 30 % of the 717 images of the shard
MODEL = (
    *("--model", "tinycnn", "--width", "8", "--image-size", "8", "--normalization", "digits"),
    *("--augment", "none", "--rounds", "100", "--lr-schedule", "constant"),
)


@dataclass(frozen=True)
class Fleet:
    """A finished run that is served, and its two clients, of which one has held out images."""

    address: str
    server: Path
    careful: Path
    other: Path


@pytest.fixture(scope="module")
def fleet(launch: Launch) -> Iterator[Fleet]:
    with launch(
        *("hetero-server", "--clients", "2", "--listen", "127.0.0.1:0", "--run-dir", "run"), *MODEL
    ) as server:
        common = ("--server", server.address, "--dataset", "digits", "--run-dir", "run")
        careful = ("--cut-layer", "2", "--shard", "1/2", "--validation", "0.3")
        other = ("--cut-layer", "3", "--shard", "2/2")
        with (
            launch("hetero-client", *common, *careful, "--client-id", "careful") as one,
            launch("hetero-client", *common, *other, "--client-id", "other") as two,
        ):
            assert [process.finish().code for process in (one, two, server)] == [0, 0, 0]
    runs = [process.folder / "run" for process in (server, one, two)]
    with launch("hetero-server", "--serve", str(runs[0]), "--listen", "127.0.0.1:0") as serving:
        yield Fleet(serving.address, *runs)


@pytest.fixture
def run(fleet: Fleet, tmp_path: Path) -> Path:
    """A copy of the careful client's run directory, to be changed."""
    return shutil.copytree(fleet.careful, tmp_path / "run")


@dataclass(frozen=True)
class Output:
    code: int
    stdout: str
    stderr: str


Infer = Callable[..., Output]
"""(*flags of hetero-infer) -> what it has said."""


@pytest.fixture
def infer(fleet: Fleet, run: Path, capsys: pytest.CaptureFixture[str]) -> Infer:
    """Run hetero-infer in this process, on the copy, with a server that may take its time."""

    def ask(*flags: str) -> Output:
        capsys.readouterr()
        patient = ("--deadline-ms", "60000")
        code = infer_main(["--run", str(run), "--server", fleet.address, *patient, *flags])
        return Output(code, *capsys.readouterr())

    return ask


def kept(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / CALIBRATION_FILE).read_bytes())
    return content


# --- training -------------------------------------------------------------------------------------


def test_what_is_held_out_is_not_part_of_the_shard(fleet: Fleet) -> None:
    sizes = {
        event["client"]: event["shard_size"]
        for event in read_records(fleet.server)
        if event["event"] == "joined"
    }
    assert sizes == {"careful": 717 - HELD_OUT, "other": 716}


# --- choosing -------------------------------------------------------------------------------------


def test_a_share_to_offload_is_kept_and_answered_with(infer: Infer, run: Path) -> None:
    output = infer("--calibrate", "--offload", "0.3", "--output", "json")
    assert output.code == 0
    calibration = json.loads(output.stdout)
    assert calibration == kept(run)
    assert calibration["images"] == HELD_OUT
    assert calibration["source"] == "held out of shard 1/2 of digits"
    assert 0.3 - 1 / HELD_OUT < calibration["offload_share"] <= 0.3
    assert calibration["exit_accuracy"] > 0.2, "it has learned something"
    assert calibration["exit_auroc"] > 0.5

    output = infer("--dataset", "digits", "--output", "json")
    assert output.code == 0
    answers = [json.loads(line) for line in output.stdout.splitlines()]
    assert len(answers) == 364
    threshold = round(calibration["threshold"], 4)
    clear = [each for each in answers if each["uncertainty"] != threshold]
    assert {(each["uncertainty"] < threshold, each["source"]) for each in clear} == {
        (True, "exit"),
        (False, "server"),
    }
    assert output.stderr.splitlines()[-1] == (
        f"threshold {calibration['threshold']:.4g}, chosen by --calibrate for at most 30% offloaded"
    )


def test_a_threshold_on_the_confidence_is_kept_as_one(infer: Infer, run: Path) -> None:
    by_confidence = ("--criterion", "confidence")
    assert infer("--calibrate", "--offload", "0.3", *by_confidence).code == 0
    assert kept(run)["criterion"] == "confidence"
    output = infer("--dataset", "digits", "--output", "json")
    answers = [json.loads(line) for line in output.stdout.splitlines()]
    at_exit = [each for each in answers if each["source"] == "exit"]
    assert 0 < len(at_exit) < len(answers)
    for each in at_exit:
        lacking = (1 - each["confidence"]) * 10 / 9
        assert each["uncertainty"] == pytest.approx(lacking, abs=1.2e-4)


def test_a_threshold_is_for_the_criterion_that_it_was_chosen_for(infer: Infer, run: Path) -> None:
    assert infer("--calibrate", "--offload", "0.3").code == 0
    data = ("--dataset", "digits", "--samples", "20", "--criterion", "confidence")
    output = infer(*data)
    assert output.code == 2
    assert output.stderr.splitlines()[-1] == (
        f"hetero-infer: the threshold of {run} was chosen for --criterion entropy: choose one for "
        "confidence with --calibrate, or give --threshold"
    )
    assert infer(*data, "--threshold", "0.3").code == 0


def test_an_accuracy_is_reached_on_the_held_out_images(infer: Infer, run: Path) -> None:
    infer("--calibrate", "--offload", "1", "--output", "json")
    server = kept(run)["server_accuracy"]
    output = infer("--calibrate", "--accuracy", f"{server:.17g}", "--output", "json")
    assert output.code == 0
    assert kept(run)["accuracy"] >= server
    assert kept(run)["target"] == {"kind": "accuracy", "value": server, "confidence": None}


def test_a_loss_is_bounded_with_confidence(infer: Infer, run: Path) -> None:
    output = infer("--calibrate", "--max-loss", "0.1", "--confidence", "0.9", "--output", "json")
    assert output.code == 0
    calibration = kept(run)
    assert calibration["target"] == {"kind": "max-loss", "value": 0.1, "confidence": 0.9}
    assert calibration["lost_share"] < calibration["lost_at_most"] <= 0.1
    assert calibration["accuracy"] >= calibration["server_accuracy"] - calibration["lost_share"]


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        ("0", "no number of images can show that none is lost"),
        ("0.001", f"{HELD_OUT} images cannot show it, 2995 can if none of them is lost"),
    ],
)
def test_a_loss_that_can_not_be_shown_offloads_everything(
    loss: str, why: str, infer: Infer, run: Path
) -> None:
    output = infer("--calibrate", "--max-loss", loss)
    assert output.code == 0
    lines = output.stdout.splitlines()
    assert lines[-2] == f"everything is offloaded: {why}"
    assert (kept(run)["threshold"], kept(run)["offload_share"]) == (-1.0, 1.0)
    output = infer("--dataset", "digits", "--samples", "50")
    assert "exit 0.0%, server 100.0%, degraded 0.0%" in output.stdout
    assert output.stdout.splitlines()[-1].startswith("threshold -1, chosen by --calibrate for ")


def test_a_table_says_what_the_threshold_is_worth(infer: Infer, run: Path) -> None:
    output = infer("--calibrate", "--max-loss", "0.2")
    assert (output.code, output.stderr) == (0, "")
    rows = {
        name.strip(): value.strip()
        for name, value in (
            line.split("│")[1:3] for line in output.stdout.splitlines() if "│" in line
        )
    }
    calibration = kept(run)
    assert rows == {
        "chosen for": "at most 20% lost, with confidence 0.95",
        "images": f"{HELD_OUT}, held out of shard 1/2 of digits",
        "threshold": f"{calibration['threshold']:.4g}",
        "accuracy of the exit": f"{calibration['exit_accuracy']:.2%}",
        "accuracy of the server": f"{calibration['server_accuracy']:.2%}",
        "accuracy at the threshold": f"{calibration['accuracy']:.2%}",
        "offloaded": f"{calibration['offload_share']:.1%}",
        "lost": f"{calibration['lost_share']:.2%}",
        "lost at most": f"{calibration['lost_at_most']:.2%}",
        "AUROC of the entropy": f"{calibration['exit_auroc']:.3f}",
        "calibration error of the exit": f"{calibration['exit_calibration_error']:.2%}",
        "calibration error of the server": f"{calibration['server_calibration_error']:.2%}",
    }
    assert output.stdout.splitlines()[-1] == (
        f"kept in {run / CALIBRATION_FILE}: hetero-infer answers with it from now on"
    )


def test_labeled_images_of_a_folder_do_as_well(infer: Infer, run: Path, tmp_path: Path) -> None:
    """The held-out images themselves, as files, give the same threshold."""
    infer("--calibrate", "--offload", "0.4", "--output", "json")
    by_shard = kept(run)
    shard = load_validation(TrainedOn.read(run), read_plan(run), 0, 2)
    for number, (image, label) in enumerate(zip(shard.images, shard.labels.tolist(), strict=True)):
        file = tmp_path / "pictures" / "validation" / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    folder = f"folder:{tmp_path / 'pictures'}"
    output = infer("--calibrate", "--offload", "0.4", "--dataset", folder, "--output", "json")
    assert output.code == 0
    assert kept(run)["source"] == f"validation images of {folder}"
    for name in ("threshold", "offload_share", "accuracy", "server_accuracy", "exit_auroc"):
        assert kept(run)[name] == pytest.approx(by_shard[name], rel=1e-5), name


# --- answering ------------------------------------------------------------------------------------


def test_a_threshold_that_is_given_comes_first(infer: Infer) -> None:
    infer("--calibrate", "--offload", "1")
    output = infer("--dataset", "digits", "--samples", "50", "--threshold", "1")
    assert "exit 100.0%, server 0.0%" in output.stdout
    assert "--calibrate" not in output.stdout + output.stderr


def test_without_a_calibration_the_threshold_is_the_default(infer: Infer) -> None:
    given = infer("--dataset", "digits", "--threshold", "0.5", "--output", "json")
    assert infer("--dataset", "digits", "--output", "json") == given


def test_weights_that_are_trained_anew_need_a_new_calibration(
    infer: Infer, fleet: Fleet, run: Path
) -> None:
    infer("--calibrate", "--offload", "0.5")
    calibration = run / CALIBRATION_FILE
    content = json.loads(calibration.read_bytes())
    calibration.write_text(json.dumps(content | {"model": "0" * 64}))
    output = infer("--dataset", "digits")
    assert (output.code, output.stdout) == (2, "")
    assert sentence_of("hetero-infer", output.stderr) == (
        f"{calibration} is of other weights than {MODEL_FILE}: run hetero-infer --calibrate again, "
        "or give --threshold"
    )
    assert infer("--dataset", "digits", "--samples", "5", "--threshold", "1").code == 0


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ("--calibrate",),
            "--calibrate takes exactly one of --offload, --accuracy and --max-loss, but got "
            "none of them",
        ),
        (
            ("--calibrate", "--offload", "0.1", "--max-loss", "0.1"),
            "--calibrate takes exactly one of --offload, --accuracy and --max-loss, but got "
            "--offload and --max-loss",
        ),
        (
            ("--calibrate", "--offload", "1.5"),
            "setting offload: input should be less than or equal to 1, got '1.5'",
        ),
        (
            ("--calibrate", "--accuracy", "-0.1"),
            "setting accuracy: input should be greater than or equal to 0, got '-0.1'",
        ),
        (
            ("--calibrate", "--max-loss", "1"),
            "setting max-loss: input should be less than 1, got '1'",
        ),
        (
            ("--calibrate", "--max-loss", "0.1", "--confidence", "1"),
            "setting confidence: input should be less than 1, got '1'",
        ),
        (
            ("--calibrate", "--offload", "0.1", "--confidence", "0.9"),
            "--confidence is that of --max-loss: give one, or leave it out",
        ),
        (
            ("--dataset", "digits", "--offload", "0.1"),
            "--offload, --accuracy and --max-loss are for --calibrate: add it",
        ),
        (
            ("--calibrate", "--offload", "0.1", "--threshold", "0.4"),
            "--calibrate chooses the threshold, and takes all images that there are for it: leave "
            "out image files, --curve, --samples and --threshold",
        ),
        (
            ("--calibrate", "--offload", "0.1", "--dataset", "digits"),
            "digits is not for choosing a threshold: leave --dataset out to take the images that "
            "were held out, or give folder:PATH with validation/<class>/<image>",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    flags: tuple[str, ...], sentence: str, infer: Infer, run: Path
) -> None:
    output = infer(*flags)
    assert (output.code, output.stdout) == (2, "")
    assert sentence_of("hetero-infer", output.stderr) == sentence
    assert not (run / CALIBRATION_FILE).exists()


@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        ("server", "{} is a server's run: name the run of a client"),
        (
            "other",
            "{} has held out no images: train with --validation 0.1, or give labeled images with "
            "--dataset folder:PATH",
        ),
    ],
)
def test_a_run_without_a_device_or_images_is_named(
    of: str, sentence: str, infer: Infer, fleet: Fleet
) -> None:
    folder = {"server": fleet.server, "other": fleet.other}[of]
    output = infer("--run", str(folder), "--calibrate", "--offload", "0.1")
    assert (output.code, output.stdout) == (2, "")
    assert sentence_of("hetero-infer", output.stderr) == sentence.format(folder)
    assert not (folder / CALIBRATION_FILE).exists()


def test_an_accuracy_out_of_reach_leaves_the_calibration_as_it_was(infer: Infer, run: Path) -> None:
    infer("--calibrate", "--offload", "0.1")
    before = (run / CALIBRATION_FILE).read_bytes()
    output = infer("--calibrate", "--accuracy", "1")
    assert (output.code, output.stdout) == (2, "")
    assert sentence_of("hetero-infer", output.stderr).startswith(
        f"no threshold gives an accuracy of 1 on these {HELD_OUT} images: the best is 0."
    )
    assert (run / CALIBRATION_FILE).read_bytes() == before


def test_without_a_server_nothing_is_chosen(infer: Infer, run: Path) -> None:
    with socket.socket() as nobody:  # bound, so that the port is not another's; nobody listens
        nobody.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*nobody.getsockname())
        output = infer("--calibrate", "--offload", "0.1", "--server", address)
    assert (output.code, output.stdout) == (1, "")
    assert "connection" in sentence_of("hetero-infer", output.stderr)
    assert not (run / CALIBRATION_FILE).exists()
