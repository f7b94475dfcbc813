"""The code in the documents does what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from hetero_client.data.shard import load_test
from hetero_client.settings import ClientSettings, InferenceSettings
from hetero_common.records.history import read_records
from hetero_common.records.rundir import read_plan
from hetero_common.settings import Settings
from hetero_server.settings import ServerSettings

if TYPE_CHECKING:
    from conftest import Simulate

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "docs" / "runs.md"
HOUSES = {
    "hetero_common": "common",
    "hetero_client": "client",
    "hetero_server": "server",
    "hetero_lab": "server",
}


@pytest.mark.parametrize("head", ["linear", "conv"])
def test_a_servers_file_is_loaded_as_docs_runs_md_says(simulate: Simulate, head: str) -> None:
    run = simulate(
        *("--dataset", "digits", "--normalization", "digits", "--image-size", "8", "--width", "4"),
        *("--model", "tinycnn", "--cut-layers", "2,4", "--clients", "2", "--rounds", "60"),
        *("--exit-head", head, "--augment", "none"),
    )
    blocks = re.findall(r"```python\n(.*?)```", RUNS.read_text(), re.S)
    (example,) = [block for block in blocks if 'Path("RUN")' in block]
    loaded: dict[str, Any] = {}
    exec(example.replace("RUN", str(run)), loaded)
    test = load_test("digits", Path("data"), read_plan(run))
    with torch.no_grad():
        exit_, whole = loaded["logits"](test.images)
    right = [
        float((logits.argmax(dim=1) == test.labels).double().mean()) for logits in (exit_, whole)
    ]
    (recorded,) = [
        event
        for event in read_records(run)
        if event["event"] == "evaluation" and event["cut_layer"] == 2
    ]
    assert right == pytest.approx(
        [recorded["exit_accuracy"], recorded["server_accuracy"]], abs=0.003
    )


def test_the_quickstarts_model_and_data_train(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (RUNS.parent / "examples" / "shapes.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    (tmp_path / "shapes.py").write_text(source, encoding="utf-8")
    subprocess.run([sys.executable, "shapes.py", "shapes"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    run = simulate(
        *("--model", "shapes:model", "--classes", "3", "--image-size", "24", "--dataset"),
        *("folder:shapes", "--normalization", "0.3,0.3,0.3/0.25,0.25,0.25", "--exits", "2,3"),
        *("--exit-head", "conv", "--batch-size", "16", "--clients", "2", "--cut-layers", "2,3"),
        *("--rounds", "150"),
    )
    last = [event for event in read_records(run) if event["event"] == "evaluation"][-1]
    assert last["samples"] == 300
    assert last["server_accuracy"] > 0.5


def test_a_strategy_and_an_optimizer_of_ones_own_train(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (RUNS.parent / "examples" / "plugins.py").read_text(encoding="utf-8")
    (shown,) = re.findall(
        r"```python\n(class Twice.*?)```", (RUNS.parent / "method.md").read_text("utf-8"), re.S
    )
    assert source.endswith(shown)
    (tmp_path / "plugins.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    run = simulate(
        *("--strategy", "plugins:TwiceStrategy", "--optimizer", "plugins:rmsprop"),
        *("--client-lr", "0.01", "--server-lr", "0.01", "--augment", "none"),
        *("--dataset", "digits", "--normalization", "digits", "--image-size", "8", "--width", "4"),
        *("--model", "tinycnn", "--cut-layers", "2,4", "--clients", "2", "--rounds", "100"),
        *("--batch-size", "32"),
    )
    last = [event for event in read_records(run) if event["event"] == "evaluation"][-1]
    assert last["server_accuracy"] > 0.5


def test_the_quickstart_shows_the_flags_that_there_are() -> None:
    """Its long commands are checked as far as that goes without running them."""
    text = (RUNS.parent / "quickstart.md").read_text(encoding="utf-8").replace("\\\n", " ")
    known: dict[str, type[Settings]] = {
        "hetero-server": ServerSettings,
        "hetero-client": ClientSettings,
        "hetero-infer": InferenceSettings,
    }
    commands = re.findall(r"^(?:\$ )?(hetero-(?:server|client|infer)) (.*)$", text, re.M)
    assert len(commands) >= 8
    for command, flags in commands:
        for flag in re.findall(r"--([a-z-]+)", flags):
            assert flag.replace("-", "_") in known[command].model_fields, (command, flag)


DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
PATH = r"\b(?:tests|benchmarks|docs|deploy|hetero_[a-z]+)/[\w/.-]+\.(?:py|md|yaml|jsonl)\b"
MODULE = r"\bhetero_(?:common|client|server|lab)(?:\.[a-z_]+)+"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_names_files_that_there_are(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for path in re.findall(PATH, text):
        assert (ROOT / HOUSES.get(path.partition("/")[0], "") / path).exists(), path
    for module in re.findall(MODULE, text):
        package, *names = module.split(".")
        path = (ROOT / HOUSES[package] / package).joinpath(*names)
        files = (path, path.with_suffix(".py"), path.parent.with_suffix(".py"))  # or a name in it
        assert any(file.exists() for file in files), module


def test_the_readmes_tree_names_files_that_there_are() -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").rpartition("## The tree")[2]
    top = Path()
    for line in tree.split("```")[1].splitlines():
        names = re.findall(r"(?:^ {0,4}|  )([\w./]+(?:/|\.\w+))(?=  |$)", line[:29] + "  ")
        for name in names:
            top = ROOT / name if not line.startswith(" ") else top
            path = top if not line.startswith(" ") else top / name
            assert path.exists(), f"{name} of {top}"
