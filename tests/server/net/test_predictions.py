"""A server that only serves: predictions, its status, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from hetero_client.link.transport import ServerLink
from hetero_common.agreement.plan import Plan
from hetero_common.errors import ModelMismatch, NotTraining
from hetero_common.records.rundir import MODEL_FILE, PLAN_FILE
from hetero_server.compute_thread import ComputeThread
from hetero_server.learning.initial_model import InitialModel
from hetero_server.monitoring.monitor import Monitor
from hetero_server.net.listener import Listener
from hetero_server.net.predictions import PredictionService
from hetero_server.run.served_model import ServedModel

PLAN = Plan(model="tinycnn", width=4, image_size=8, classes=3, wire="fp32")


@pytest.fixture
def model(tmp_path: Path) -> ServedModel:
    (tmp_path / PLAN_FILE).write_text(PLAN.model_dump_json())
    (tmp_path / MODEL_FILE).write_bytes(InitialModel(PLAN).weights.to_bytes())
    return ServedModel(tmp_path)


def play(link: ServerLink, model: ServedModel) -> None:
    status = link.status()
    assert (status.run.run_id, status.run.phase, status.run.members) == ("run-1", "SERVING", ())
    fingerprint = model.initial.fingerprint
    activation = torch.randn(5, *model.initial.shapes[1])
    (answer,) = link.predict(iter([activation]), cut_layer=2, fingerprint=fingerprint)
    assert torch.equal(answer, model.predict(activation, 2, None))
    with pytest.raises(ModelMismatch):
        list(link.predict(iter([activation]), cut_layer=2, fingerprint="0" * 64))
    with pytest.raises(NotTraining, match="only being served"):
        link.register("a", 2, 64, fingerprint)
    with pytest.raises(NotTraining):
        link.pull_state()
    with pytest.raises(NotTraining):
        link.leave()


def test_it_answers_and_trains_nobody(model: ServedModel) -> None:
    async def serve() -> None:
        compute, monitor = ComputeThread(), Monitor()
        monitor.watch(model, "run-1", "mixed")
        listener = await Listener.open("127.0.0.1:0")
        listener.serve(PredictionService(model, compute, monitor))
        try:
            with ServerLink(f"127.0.0.1:{listener.port}", connect_timeout=10) as link:
                await asyncio.to_thread(play, link, model)
            assert monitor.metrics.answered == 5
        finally:
            await listener.close()
            compute.close()

    asyncio.run(serve())
