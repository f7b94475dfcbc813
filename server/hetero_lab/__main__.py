"""hetero-sim: train many clients and their server in one process.

hetero-sim --strategy averaging --clients 12 --cut-layers 3,4,5 --dataset cifar10
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from hetero_client.device_model import DeviceModel
from hetero_client.shards import load_shard, load_test
from hetero_client.trainer import Trainer
from hetero_common.command import run_command
from hetero_common.compute import Compute
from hetero_common.rundir import MODEL_FILE, PLAN_FILE, SETTINGS_FILE, RunDir
from hetero_common.settings import as_yaml
from hetero_common.weights import Weights, layer_states, numbered
from hetero_lab.centralized import Centralized
from hetero_lab.settings import SimulationSettings
from hetero_lab.simulation import SimulatedClient, simulate
from hetero_server.build import build_engine
from hetero_server.initial import InitialModel
from hetero_server.results import results_table

log = logging.getLogger(__name__)


def main(flags: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run_command("hetero-sim", SimulationSettings, _run, flags)


def _run(settings: SimulationSettings) -> None:
    {"split": _split, "centralized": _centralized}[settings.method](settings)


def _split(settings: SimulationSettings) -> None:
    plan, count = settings.plan(), settings.clients
    initial, compute = InitialModel(plan), Compute(settings.device, settings.precision)
    test = load_test(settings.dataset, settings.data_dir, plan)
    shards = [load_shard(settings, plan, index, count) for index in range(count)]
    models = [DeviceModel(plan, cut_layer, compute) for cut_layer in settings.cuts()]
    with _run_dir(settings) as run_dir:
        engine = build_engine(initial, settings, compute, clients=count, observe=_observer(run_dir))
        clients = []
        for number, (model, shard) in enumerate(zip(models, shards, strict=True), start=1):
            client_id = f"client-{number}"
            member = engine.register(client_id, model.cut_layer, len(shard.labels))
            trainer = Trainer(plan, client_id, model, shard, member.steps)
            clients.append(
                SimulatedClient(
                    engine,
                    member,
                    trainer,
                    test,
                    threshold=settings.threshold,
                    eval_samples=settings.eval_samples,
                )
            )
        simulate(engine, clients)
        assert engine.model is not None, "a finished run has assembled its model"
        run_dir.write(MODEL_FILE, engine.model.to_bytes({"fingerprint": initial.fingerprint}))
        for client in clients:
            data = client.trainer.model.weights().to_bytes()
            run_dir.write(f"{client.member.client_id}.safetensors", data)
        Console().print(results_table(engine.members.values()))


def _centralized(settings: SimulationSettings) -> None:
    """As many images as all clients of the split run train on, in as many rounds."""
    plan = settings.plan()
    train = load_shard(settings, plan, 0, 1)
    test = load_test(settings.dataset, settings.data_dir, plan)
    steps = settings.clients * plan.steps_for(len(train.labels) // settings.clients)
    run = Centralized(plan, train, test, Compute(settings.device, plan.precision))
    with _run_dir(settings) as run_dir:
        run.run([steps] * plan.rounds, settings.eval_samples, _observer(run_dir))
        weights = Weights(layer_states(numbered(run.model)))
        run_dir.write(MODEL_FILE, weights.to_bytes())


@contextlib.contextmanager
def _run_dir(settings: SimulationSettings) -> Iterator[RunDir]:
    """Opened only when everything that bad input can stop is done."""
    name = f"sim-{datetime.now():%Y%m%d-%H%M%S}"
    with RunDir(settings.run_dir or Path("runs") / name) as run_dir:
        run_dir.write(SETTINGS_FILE, as_yaml(settings))
        run_dir.write(PLAN_FILE, settings.plan().model_dump_json(indent=2))
        yield run_dir
        log.info("the run is done: weights and metrics are in %s", run_dir.path)


def _observer(run_dir: RunDir) -> Callable[..., None]:
    def observe(event: str, **fields: Any) -> None:
        run_dir.event(event, **fields)
        if event == "evaluation":
            shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in fields.items()}
            log.info("evaluation %s", shown)

    return observe


if __name__ == "__main__":
    sys.exit(main())
