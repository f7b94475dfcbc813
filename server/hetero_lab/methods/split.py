"""Heterogeneous split training: the server's own engine with the clients' own trainer."""

from __future__ import annotations

from rich.console import Console

from hetero_client.data.shard import Shard, load_shards, load_test
from hetero_client.device_model import DeviceModel
from hetero_client.training.trainer import PrefixTrainer
from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.records.events import Observer
from hetero_common.records.rundir import MODEL_FILE, RunDir
from hetero_lab.method import METHODS, Method
from hetero_lab.methods.base import Training
from hetero_lab.resuming import Snapshots
from hetero_lab.settings import SimulationSettings
from hetero_lab.simulation import InNoFile, SimulatedClient, simulate
from hetero_server.build import build_engine
from hetero_server.learning.initial_model import InitialModel
from hetero_server.run.checkpointing import Saving
from hetero_server.run.results import results_table


def prepare(settings: SimulationSettings) -> Training:
    """A server and its clients, `client-1`, `client-2` ..., with a shard each."""
    plan, count = settings.plan(), settings.clients
    initial, compute = InitialModel(plan), Compute(settings.device, settings.precision)
    test = load_test(settings.dataset, settings.data_dir, plan)
    shards = load_shards(settings, plan, settings.cuts())
    models = [DeviceModel(plan, cut_layer, compute) for cut_layer in settings.cuts()]
    names = [f"client-{number}" for number in range(1, count + 1)]

    def run(run_dir: RunDir, observe: Observer, snapshots: Snapshots) -> None:
        trainers = {
            client_id: PrefixTrainer(
                plan, client_id, model, shard, plan.steps_for(len(shard.labels))
            )
            for client_id, model, shard in zip(names, models, shards, strict=True)
        }
        store = snapshots.store("run", trainers)
        engine = build_engine(
            initial,
            settings,
            compute,
            clients=count,
            observe=observe,
            saving=Saving(store, cadence=snapshots.cadence),
        )
        newest = store.newest()
        if newest is not None:
            engine.begin(newest)
        clients = [
            SimulatedClient(
                client_id,
                trainer,
                len(shard.labels),
                test,
                settings.exit_rule,
                settings.eval_samples,
                InNoFile(newest and store.of_part(client_id, newest)),
            )
            for (client_id, trainer), shard in zip(trainers.items(), shards, strict=True)
        ]
        simulate(engine, snapshots.run, clients)
        assert engine.model is not None, "a finished run has assembled its model"
        run_dir.write(MODEL_FILE, engine.model.to_bytes({"fingerprint": initial.fingerprint}))
        for client_id, trainer in trainers.items():
            data = trainer.model.weights().to_bytes()
            run_dir.write(f"{client_id}.safetensors", data)
        Console().print(results_table(engine.members.values()))

    return run


def _steps(plan: Plan, shard: Shard) -> int:
    return plan.steps_for(len(shard.labels))


METHODS.add("split", "heterogeneous split training")(Method(prepare))
