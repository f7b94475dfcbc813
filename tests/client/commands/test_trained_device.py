from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hetero_client.commands import trained_device
from hetero_client.commands.trained_device import TrainedDevice
from hetero_client.settings import InferenceSettings
from hetero_common.errors import SettingsError
from hetero_common.records.rundir import MODEL_FILE, PLAN_FILE
from hetero_common.settings import load
from support.finished_device import CLASSES, CUT, PLAN, finished_device


def device_of(run: Path, *flags: str) -> TrainedDevice:
    return TrainedDevice(load(InferenceSettings, ["--run", str(run), *flags], "hetero-infer"))


def test_it_answers_with_the_weights_of_its_run(tmp_path: Path) -> None:
    model = finished_device(tmp_path)
    device = device_of(tmp_path)
    assert (device.plan, device.classes) == (PLAN, list(CLASSES))
    assert device.model.cut_layer == CUT
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert all(map(torch.equal, device.model.infer(images), model.infer(images)))


@pytest.mark.parametrize(("wanted", "rows"), [("16", 16), ("256", 256)])
def test_a_request_has_the_images_that_are_wanted(wanted: str, rows: int, tmp_path: Path) -> None:
    finished_device(tmp_path)
    assert device_of(tmp_path, "--batch-size", wanted).rows == rows


def test_a_request_has_no_more_rows_than_the_server_takes(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"classes": 1000})
    finished_device(tmp_path, plan=plan)
    assert device_of(tmp_path, "--batch-size", "256").rows == plan.predict_rows


def test_a_servers_run_is_no_device(tmp_path: Path) -> None:
    model = finished_device(tmp_path)
    (tmp_path / MODEL_FILE).write_bytes(model.weights().to_bytes({"fingerprint": "f"}))
    with pytest.raises(SettingsError, match="is a server's run: name the run of a client"):
        device_of(tmp_path)


def test_weights_of_another_plan_are_no_device_of_this_one(tmp_path: Path) -> None:
    finished_device(tmp_path)
    wider = PLAN.model_copy(update={"width": 8})
    (tmp_path / PLAN_FILE).write_text(wider.model_dump_json())
    with pytest.raises(SettingsError, match="does not hold a device of its plan"):
        device_of(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        device_of(tmp_path / "nowhere")


class Link:
    """Notes how it was opened and asked, and answers with the activations themselves."""

    opened: tuple[str, dict[str, Any]]
    calls: list[tuple[float | None, list[int]]]

    def __init__(self, address: str, **options: Any) -> None:
        type(self).opened = (address, options)
        type(self).calls = []

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def predict(
        self, activations: Iterator[Tensor], *, deadline: float | None, **about: object
    ) -> Iterator[Tensor]:
        assert about.keys() == {"cut_layer", "fingerprint"}
        sent = list(activations)
        self.calls.append((deadline, [len(each) for each in sent]))
        yield from sent


@pytest.mark.parametrize(
    ("deadline", "calls"), [(None, [(None, [3, 2])]), (0.5, [(0.5, [3]), (0.5, [2])])]
)
def test_a_deadline_is_that_of_each_request_and_without_one_they_share_a_call(
    deadline: float | None,
    calls: list[tuple[float | None, list[int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trained_device, "ServerLink", Link)
    finished_device(tmp_path)
    device = device_of(tmp_path, "--server", "host:1", "--token", "secret", "--insecure")
    sent = [torch.zeros(3, 4), torch.ones(2, 4)]
    with device.connected(deadline) as predict:
        assert all(map(torch.equal, predict(iter(sent)), sent))
    assert Link.calls == calls
    assert Link.opened == (
        "host:1",
        {"wire_dtype": PLAN.wire, "certs": None, "token": "secret", "insecure": True},
    )
