"""The run directory of a client that has finished, without a run, and a server beside it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from hetero_client.commands.trained_device import TrainedDevice
from hetero_client.device_model import DeviceModel
from hetero_client.exits.evaluation import Predict
from hetero_client.settings import ClientSettings, InferenceSettings
from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.models import build_model
from hetero_common.models.split import split_model
from hetero_common.records.rundir import MODEL_FILE, PLAN_FILE, SETTINGS_FILE
from hetero_common.settings import as_yaml, load

PLAN = Plan(model="tinycnn", width=4, image_size=8, normalization="digits", exit_head="linear")
CUT = 2
CLASSES = tuple("0123456789")


def finished_device(run: Path, *flags: str, plan: Plan = PLAN) -> DeviceModel:
    """Leave there what a client leaves that was started with these flags."""
    torch.manual_seed(0)
    model = DeviceModel(plan, CUT, Compute())
    metadata = {"cut_layer": str(CUT), "classes": json.dumps(CLASSES)}
    run.mkdir(parents=True, exist_ok=True)
    (run / MODEL_FILE).write_bytes(model.weights().to_bytes(metadata))
    (run / PLAN_FILE).write_text(plan.model_dump_json())
    given = ("--cut-layer", str(CUT), "--dataset", "digits", *flags)
    (run / SETTINGS_FILE).write_text(as_yaml(load(ClientSettings, given, "hetero-client")))
    return model


class ServedDevice(TrainedDevice):
    """A device whose server is in this process: a network that was never trained."""

    def __init__(self, settings: InferenceSettings) -> None:
        super().__init__(settings)
        torch.manual_seed(1)
        model = build_model(self.plan.model, num_classes=self.plan.classes, width=self.plan.width)
        self.suffix: nn.Module = split_model(model, CUT)[1].eval()

    @contextlib.contextmanager
    def connected(self, deadline: float | None) -> Iterator[Predict]:
        def predict(activations: Iterator[Tensor]) -> Iterator[Tensor]:
            for activation in activations:
                with torch.no_grad():
                    yield self.suffix(activation).softmax(dim=1)

        yield predict
