"""FedAvg: every client trains a whole model on its own images, and the copies are averaged.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-efficient learning of deep networks
from decentralized data", AISTATS 2017 (arXiv 1602.05629), algorithm 1 with all clients in every
round, and with the recipe of the split run: local momentum is kept from round to round.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from hetero_client.data.shard import load_shards, load_test
from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.compute.schedules import StepAt
from hetero_common.compute.seeding import seeded
from hetero_common.models.exits import build_exit
from hetero_common.models.split import activation_shapes
from hetero_common.records.events import Observer, WholeEvaluated, WholeRound
from hetero_common.records.rundir import MODEL_FILE, RunDir
from hetero_common.tensors.aggregation import cross_layer_average
from hetero_common.tensors.weights import Weights
from hetero_lab.method import METHODS, Method
from hetero_lab.methods.base import Training, evaluated_on, scores
from hetero_lab.methods.undivided import Undivided, whole_model
from hetero_lab.resuming import Snapshots
from hetero_lab.settings import SimulationSettings


def prepare(settings: SimulationSettings) -> Training:
    """Every device holds the whole model, whether it could or not."""
    return _prepare(settings, {MODEL_FILE: (whole_model, {})})


def prepare_prefixes(settings: SimulationSettings) -> Training:
    """Every device holds a prefix with its exit, all of one size: once per cut layer."""
    cuts = sorted(set(settings.cuts()))
    return _prepare(
        settings,
        {f"prefix-{cut}.safetensors": (partial(_prefix, cut), {"cut_layer": cut}) for cut in cuts},
    )


def _prefix(cut_layer: int, plan: Plan) -> nn.Sequential:
    whole = whole_model(plan)
    shape = activation_shapes(whole, plan.image_size)[cut_layer - 1]
    with seeded(plan.seed, "exit"):
        head = build_exit(plan.exit_head, shape, plan.classes)
    return nn.Sequential(*list(whole)[:cut_layer], head)


def _prepare(
    settings: SimulationSettings,
    kinds: dict[str, tuple[Callable[[Plan], nn.Sequential], dict[str, Any]]],
) -> Training:
    """Train one kind of model after another; each has a file, and fields that name it in events."""
    plan = settings.plan()
    compute = Compute(settings.device, plan.precision)
    shards = load_shards(settings, plan, settings.cuts())
    test = load_test(settings.dataset, settings.data_dir, plan)

    def run(run_dir: RunDir, observe: Observer, snapshots: Snapshots) -> None:
        for file, (build, named) in kinds.items():
            clients = [
                Undivided(plan, f"client-{number}", build(plan), shard, compute)
                for number, shard in enumerate(shards, start=1)
            ]
            parts = {client.name: client for client in clients}
            size = len(Weights(clients[0].states()).to_bytes())
            for round_ in snapshots.rounds(plan.rounds, Path(file).stem, parts):
                losses = [_local_round(plan, client, round_) for client in clients]
                _average(clients)
                sent = _traffic(size, pushes=round_ + 1, pulls=round_ + 1)
                observe(WholeRound(round_, sum(losses) / len(losses), **sent, **named))
                if plan.evaluates_after(round_):
                    some = evaluated_on(settings, test, round_)
                    told = scores(clients[0].right(some), some, plan.classes)
                    sent = _traffic(size, pushes=round_ + 1, pulls=round_ + 2)
                    observe(WholeEvaluated(round=round_, **told, **sent, **named))
            run_dir.write(file, Weights(clients[0].states()).to_bytes())

    return run


def _traffic(size: int, *, pushes: int, pulls: int) -> dict[str, Any]:
    """Return what each client would have sent and got over a network, as files of weights."""
    return {"bytes_pushed": pushes * size, "bytes_pulled": pulls * size}


def _local_round(plan: Plan, client: Undivided, round_: int) -> float:
    steps = plan.steps_for(len(client.train.labels))
    losses = [
        client.step(round_ * steps + step, StepAt(round_, step, steps)) for step in range(steps)
    ]
    return sum(losses) / steps


def _average(clients: list[Undivided]) -> None:
    weights = [float(len(client.train.labels)) for client in clients]
    averaged = cross_layer_average([client.states() for client in clients], weights)
    for client in clients:
        client.load(averaged)


METHODS.add("fedavg", "federated averaging of whole models")(
    Method(prepare, has_clients=False, has_server=False, has_exits=False)
)
METHODS.add("fedavg-prefix", "federated averaging of prefixes with their exits")(
    Method(prepare_prefixes, has_clients=False, has_server=False)
)
