"""What it computes is tested in test_simulation.py; here, what it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hetero_common.errors import SettingsError
from hetero_common.records.history import read_records
from hetero_common.records.rundir import MODEL_FILE
from hetero_common.tensors.weights import read_file
from hetero_lab.methods.split import prepare
from lab.test_simulation import SMALL, settings_of

if TYPE_CHECKING:
    from conftest import Simulate


def test_it_leaves_the_whole_model_and_that_of_each_device(
    simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    run = simulate(*SMALL, "--clients", "4")
    held = {path.name: read_file(path)[0] for path in run.glob("*.safetensors")}
    assert sorted(held) == [*(f"client-{n}.safetensors" for n in (1, 2, 3, 4)), MODEL_FILE]
    assert len(held[MODEL_FILE].layers) == 6
    cuts = [len(held[f"client-{n}.safetensors"].layers) for n in (1, 2, 3, 4)]
    assert cuts == [2, 3, 4, 2]
    assert "Results on the test images" in capsys.readouterr().out


def test_every_client_has_joined_and_is_recorded(simulate: Simulate) -> None:
    events = read_records(simulate(*SMALL, "--clients", "2"))
    joined = [(e["client"], e["cut_layer"]) for e in events if e["event"] == "joined"]
    assert joined == [("client-1", 2), ("client-2", 3)]
    rounds = [(e["round"], e["client"]) for e in events if e["event"] == "round"]
    assert sorted(rounds) == [(r, f"client-{n}") for r in (0, 1) for n in (1, 2)]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--cut-layers", "6"), "cut layer 6 is out of range"),
        (("--classes", "7"), "data set digits has 10 classes, but the model has 7"),
        (("--clients", "1000"), "images"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(
    flags: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        prepare(settings_of(*flags))
