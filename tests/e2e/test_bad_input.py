"""What users get wrong: one sentence each, a non-zero exit code, and nothing else happens."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from hetero_client.__main__ import main as client_main
from hetero_common.records.rundir import MODEL_FILE, PLAN_FILE, SETTINGS_FILE
from hetero_lab.__main__ import main as sim_main
from hetero_server.__main__ import main as server_main
from support.commands import ERROR_NAMES, LOG_LINE, SMALL

if TYPE_CHECKING:
    from conftest import Simulate
    from e2e.conftest import Launch

Main = Callable[[Sequence[str]], int]


def sentence_of(program: str, stderr: str) -> str:
    """The one line that a command ends with, after whatever it has logged."""
    *logged, last = stderr.splitlines()
    assert all(LOG_LINE.match(line) for line in logged)
    assert last.startswith(f"{program}: ")
    sentence = last.removeprefix(f"{program}: ")
    assert len(sentence) > 20
    assert not any(name in sentence for name in ERROR_NAMES)
    return sentence


Complaint = Callable[..., str]
"""(program, main, *flags, code=2) -> the sentence."""


@pytest.fixture
def complaint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Complaint:
    """Run a command in this process, in an empty folder; it must refuse its input."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(program: str, main: Main, *flags: str, code: int = 2) -> str:
        capsys.readouterr()
        assert main(flags) == code
        written = capsys.readouterr()
        assert written.out == ""
        return sentence_of(program, written.err)

    return run


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--stratgy", "averaging"), r"unknown setting --stratgy: did you mean --strategy\?"),
        (("--rounds=3", "--lr=1"), r"unknown setting --lr=1: "),
        (("--rounds", "many"), r"setting rounds: .*integer.*, got 'many'"),
        (("--rounds", "0"), r"setting rounds: .*greater than or equal to 1, got '?0'?"),
        (("--client-lr", "-1"), r"setting client-lr: .*greater than 0"),
        (("--strategy", "median"), r"strategy: choose one of averaging, .*, got 'median'$"),
        (("--listen", "50051"), r"setting listen: write HOST:PORT, such as .*, got '50051'"),
        (("--listen", "127.0.0.1:70000"), r"setting listen: write HOST:PORT"),
        (("--normalization", "mnist"), r"normalization: choose one of cifar10, .*, got 'mnist'$"),
        (
            ("--model", "resnet99"),
            r"model: .*did you mean resnet\d+\?\), got 'resnet99'$",
        ),
        (("--model", "no_such_module:make"), r"model 'no_such_module:make' cannot be imported"),
        (("--device", "cuda:99"), r"device cuda:99 is not to be had: torch sees \d+ CUDA devices"),
        (("--device", "abacus"), r"unknown device 'abacus': use cpu, cuda or cuda:N"),
        (
            ("--listen", "0.0.0.0:0", *SMALL),
            r"other machines.* give --certs.* spell out --insecure",
        ),
        (("--listen", "[::]:0", *SMALL), r"other machines.* give --certs.* spell out --insecure"),
        (("--config", "none.yaml"), r"settings file none.yaml cannot be read: No such file"),
        (("--serve", "."), r"\. is no run directory: it has no valid plan.json"),
    ],
)
def test_a_server_refuses_bad_settings_in_one_sentence(
    flags: tuple[str, ...], sentence: str, complaint: Complaint
) -> None:
    assert re.search(sentence, complaint("hetero-server", server_main, *flags))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stategy: averaging", "unknown setting stategy: did you mean strategy?"),
        ("rounds: [1, 2]", "setting rounds: "),
        ("- rounds", "must hold `name: value` lines"),
        ("rounds: 'open", "is not valid YAML: "),
    ],
)
def test_a_server_refuses_a_bad_settings_file(
    text: str, sentence: str, complaint: Complaint, tmp_path: Path
) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(text)
    assert sentence in complaint("hetero-server", server_main, "--config", str(file))


def test_a_port_in_use_is_named(complaint: Complaint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = "{}:{}".format(*taken.getsockname())
        sentence = complaint("hetero-server", server_main, "--listen", listen, *SMALL)
    assert sentence.startswith(f"cannot listen on {listen}: the port is in use")


def test_a_run_directory_that_can_not_be_written_is_named(
    complaint: Complaint, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    sentence = complaint("hetero-server", server_main, "--run-dir", str(file / "run"), *SMALL)
    assert sentence == f"--run-dir {file}/run cannot be written: Not a directory"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), r"--cut-layer is missing: --list-cuts prints what each choice costs"),
        (("--cut-leyer", "3"), r"unknown setting --cut-leyer: did you mean --cut-layer\?"),
        (("--cut-layer", "three"), r"setting cut-layer: .*, got 'three'"),
        (("--cut-layer", "3", "--shard", "4/3"), r"shard '4/3' does not exist: write I/N"),
        (("--cut-layer", "3", "--threshold", "2"), r"setting threshold: .*less than or equal to 1"),
        (("--list-cuts", "--model", "vgg99"), r"model: choose one of .*, got 'vgg99'$"),
        (("--cut-layer", "3", "--cut-layers", "3;4"), r"setting cut-layers: write numbers"),
        (
            ("--cut-layer", "3", "--shard", "2/3", "--cut-layers", "3,4,5"),
            r"--cut-layer is 3, but by --cut-layers 3,4,5 that of shard 2/3 is 4: all clients",
        ),
    ],
)
def test_a_client_refuses_bad_settings_before_it_calls_anybody(
    flags: tuple[str, ...], sentence: str, complaint: Complaint
) -> None:
    assert re.search(sentence, complaint("hetero-client", client_main, *flags))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--cut-layers", "3;4"), r"setting cut-layers: write numbers separated by commas"),
        (("--cut-layers", "2,6"), r"cut layer 6 is out of range: choose one of 1\.\.5: 1 \(conv1"),
        (("--cut-layers", "2", "--classes", "9"), r"digits has 10 classes.*--classes 10"),
        (("--cut-layers", "2", "--clients", "1000"), r"images are too few for 1000 shards"),
        (("--cut-layers", "2", "--min-shard", "500"), r"too few for 3 shards.*lower --min-shard"),
        (("--cut-layers", "2", "--cut-skew", "0.5"), r"takes the cut layers of all clients, two"),
        (("--cut-layers", "2", "--dataset", "mnist"), r"dataset: choose one of .*, got 'mnist'$"),
    ],
)
def test_a_simulation_refuses_bad_settings(
    flags: tuple[str, ...], sentence: str, complaint: Complaint
) -> None:
    flags = (*SMALL, "--dataset", "digits", *flags)
    assert re.search(sentence, complaint("hetero-sim", sim_main, *flags))


def test_a_client_without_a_server_says_why_it_waits_and_gives_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as nobody:  # bound, so that the port is not another's; nobody listens
        nobody.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*nobody.getsockname())
        flags = ("--server", address, "--cut-layer", "2", "--connect-timeout", "1")
        assert client_main(flags) == 1
    stderr = capsys.readouterr().err
    retry = next(line for line in stderr.splitlines() if "WARNING" in line)
    assert f"waiting for the server at {address}: " in retry
    assert "onnection refused" in retry
    sentence = sentence_of("hetero-client", stderr)
    assert sentence.startswith(
        f"no server answers at {address} after 1 s: check --server and that hetero-server runs"
    )


# --- against a server that only serves ------------------------------------------------------------


@dataclass(frozen=True)
class Serving:
    address: str
    run: Path


@pytest.fixture(scope="module")
def serving(launch: Launch, simulate: Simulate) -> Iterator[Serving]:
    flags = ("--dataset", "digits", "--rounds", "1", "--steps-per-round", "1", *SMALL)
    run = simulate(*flags, "--cut-layers", "2,3", "--clients", "2")
    with launch("hetero-server", "--serve", str(run), "--listen", "127.0.0.1:0") as server:
        yield Serving(server.address, run)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save(path)


def picture_folder(root: Path, classes: int) -> Path:
    for split in ("train", "test"):
        for number in range(classes):
            for name in ("a", "b"):
                picture(root / split / f"class{number}" / f"{name}.png")
    return root


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ("--cut-layer", "6"),
            r"^cut layer 6 is out of range: choose one of 1\.\.5: "
            r"1 \(conv1\), 2 \(conv2\), 3 \(conv3\), 4 \(conv4\), 5 \(conv5\)$",
        ),
        (("--cut-layer", "0"), r"^cut layer 0 is out of range: choose one of 1\.\.5: "),
        (("--cut-layer", "-1"), r"^cut layer -1 is out of range: choose one of 1\.\.5: "),
        (
            ("--dataset", "mnist"),
            r"dataset: choose .*, folder:PATH or your own as .*, got 'mnist'$",
        ),
        (("--dataset", "folder:nowhere"), r"^nowhere does not exist: give folder:PATH"),
        (("--shard", "1/1000"), r"^1433 images are too few for 1000 shards"),
        (
            ("--width", "8"),
            r"^--width 8 was expected, but the server trains with 4: drop --width, "
            r"or start the server with --width 8$",
        ),
        (("--model", "resnet18"), r"^--model resnet18 was expected, but .* with tinycnn: "),
        (("--device", "cuda:99"), r"^device cuda:99 is not to be had"),
    ],
)
def test_a_client_that_does_not_fit_says_what_to_change(
    flags: tuple[str, ...], sentence: str, serving: Serving, complaint: Complaint
) -> None:
    common = ("--server", serving.address, "--dataset", "digits", "--cut-layer", "2")
    given = complaint("hetero-client", client_main, *common, *flags)
    assert re.search(sentence, given)
    assert list(Path.cwd().iterdir()) == [], "it has not begun a run directory"


def test_a_data_set_with_other_classes_than_the_model(
    serving: Serving, complaint: Complaint, tmp_path: Path
) -> None:
    folder = picture_folder(tmp_path / "pictures", classes=2)
    flags = ("--server", serving.address, "--cut-layer", "2", "--dataset", f"folder:{folder}")
    assert complaint("hetero-client", client_main, *flags) == (
        f"data set folder:{folder} has 2 classes, but the model has 10: "
        "start the server with --classes 2"
    )


def test_an_image_that_can_not_be_read_is_named(
    serving: Serving, complaint: Complaint, tmp_path: Path
) -> None:
    folder = picture_folder(tmp_path / "pictures", classes=10)
    broken = folder / "train" / "class7" / "b.png"
    broken.write_bytes(broken.read_bytes()[:50])
    flags = ("--server", serving.address, "--cut-layer", "2", "--dataset", f"folder:{folder}")
    sentence = complaint("hetero-client", client_main, *flags)
    assert sentence.startswith(f"{broken} cannot be read as an image (")


def test_nobody_trains_with_a_server_that_only_serves(
    serving: Serving, complaint: Complaint
) -> None:
    flags = ("--server", serving.address, "--cut-layer", "2", "--dataset", "digits")
    sentence = complaint("hetero-client", client_main, *flags, code=1)
    assert sentence == "no training goes on here: the run is over or only being served"


@pytest.mark.parametrize("missing", [PLAN_FILE, MODEL_FILE])
def test_what_is_not_a_finished_run_is_not_served(
    missing: str, serving: Serving, complaint: Complaint, tmp_path: Path
) -> None:
    for name in (PLAN_FILE, MODEL_FILE, SETTINGS_FILE):
        if name != missing:
            (tmp_path / name).write_bytes((serving.run / name).read_bytes())
    sentence = complaint("hetero-server", server_main, "--serve", str(tmp_path))
    assert sentence.startswith(f"{tmp_path}")
    assert missing in sentence


def test_a_device_s_part_of_a_model_is_not_served(
    serving: Serving, complaint: Complaint, tmp_path: Path
) -> None:
    (tmp_path / PLAN_FILE).write_bytes((serving.run / PLAN_FILE).read_bytes())
    (tmp_path / MODEL_FILE).write_bytes((serving.run / "client-1.safetensors").read_bytes())
    sentence = complaint("hetero-server", server_main, "--serve", str(tmp_path))
    assert sentence == f"{tmp_path} does not hold a whole model of its plan"
