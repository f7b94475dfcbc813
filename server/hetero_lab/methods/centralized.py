"""The yardstick: the undivided model on all the data, with the same recipe."""

from __future__ import annotations

from hetero_client.data.shard import load_shard, load_test
from hetero_common.compute.device import Compute
from hetero_common.compute.schedules import StepAt
from hetero_common.records.events import Observer, WholeEvaluated, WholeRound
from hetero_common.records.rundir import MODEL_FILE, RunDir
from hetero_common.tensors.weights import Weights
from hetero_lab.method import METHODS, Method
from hetero_lab.methods.base import Training, evaluated_on, scores
from hetero_lab.methods.undivided import Undivided, whole_model
from hetero_lab.resuming import Snapshots
from hetero_lab.settings import SimulationSettings


def prepare(settings: SimulationSettings) -> Training:
    """Prepare one model for the images that all clients of the split run train on together."""
    plan = settings.plan()
    train = load_shard(settings, plan, 0, 1)
    test = load_test(settings.dataset, settings.data_dir, plan)
    steps = settings.clients * plan.steps_for(len(train.labels) // settings.clients)
    compute = Compute(settings.device, plan.precision)
    model = Undivided(plan, "centralized", whole_model(plan), train, compute)

    def run(run_dir: RunDir, observe: Observer, snapshots: Snapshots) -> None:
        for round_ in snapshots.rounds(plan.rounds, "whole", {"model": model}):
            done = round_ * steps
            losses = [model.step(done + s, StepAt(round_, s, steps)) for s in range(steps)]
            samples = (done + steps) * plan.batch_size
            observe(WholeRound(round_, sum(losses) / steps, samples))
            if plan.evaluates_after(round_):
                some = evaluated_on(settings, test, round_)
                told = scores(model.right(some), some, plan.classes)
                observe(WholeEvaluated(round=round_, **told))
        run_dir.write(MODEL_FILE, Weights(model.states()).to_bytes())

    return run


METHODS.add("centralized", "the undivided model on all the data")(
    Method(prepare, has_clients=False, has_server=False, has_exits=False)
)
