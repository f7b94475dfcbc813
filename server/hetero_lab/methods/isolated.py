"""Each device alone: its prefix and exits on its own images, and nobody else's.

What a device can do without any of the others; taking part must be worth more than this.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hetero_client.data.shard import Shard, load_shards, load_test
from hetero_client.device_model import DeviceModel
from hetero_client.training.trainer import PrefixTrainer
from hetero_common.compute.device import Compute
from hetero_common.records.events import LocalEvaluated, LocalRound, Observer
from hetero_common.records.rundir import RunDir
from hetero_lab.method import METHODS, Method
from hetero_lab.methods.base import Training, evaluated_on, scores
from hetero_lab.resuming import Snapshots
from hetero_lab.settings import SimulationSettings
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.shared_weights import SharedWeights


@dataclass(frozen=True)
class _Device:
    client_id: str
    model: DeviceModel
    trainer: PrefixTrainer
    steps: int

    def right(self, test: Shard, rows: int) -> Tensor:
        parts = torch.split(test.images, rows)
        answers = [self.model.infer(part)[1].argmax(dim=1) for part in parts]
        return torch.cat(answers) == test.labels


def prepare(settings: SimulationSettings) -> Training:
    """The devices of the split run, each with the initial weights that it would pull."""
    plan = settings.plan()
    initial = InitialModel(plan).weights
    shared = SharedWeights.of(initial, plan)
    test = load_test(settings.dataset, settings.data_dir, plan)
    devices = []
    shards = load_shards(settings, plan, settings.cuts())
    for number, (cut_layer, shard) in enumerate(zip(settings.cuts(), shards, strict=True), start=1):
        client_id = f"client-{number}"
        model = DeviceModel(plan, cut_layer, Compute(settings.device, plan.precision))
        model.load(shared.for_cut(cut_layer))
        steps = plan.steps_for(len(shard.labels))
        trainer = PrefixTrainer(plan, client_id, model, shard, steps)
        devices.append(_Device(client_id, model, trainer, steps))

    def run(run_dir: RunDir, observe: Observer, snapshots: Snapshots) -> None:
        trainers = {device.client_id: device.trainer for device in devices}
        for round_ in snapshots.rounds(plan.rounds, "devices", trainers):
            for device in devices:
                device.trainer.begin_round()
                for step in range(device.steps):
                    device.trainer.forward(round_, step)
                    device.trainer.backward(round_, step)
                report = device.trainer.round_done(round_)
                observe(LocalRound(device.client_id, **vars(report)))
            if plan.evaluates_after(round_):
                some = evaluated_on(settings, test, round_)
                for device in devices:
                    right = device.right(some, plan.predict_rows)
                    observe(
                        LocalEvaluated(
                            round=round_,
                            client=device.client_id,
                            cut_layer=device.model.cut_layer,
                            **scores(right, some, plan.classes, "exit_"),
                        )
                    )
        for device in devices:
            run_dir.write(f"{device.client_id}.safetensors", device.model.weights().to_bytes())

    return run


METHODS.add("isolated", "each client alone")(Method(prepare, has_server=False))
