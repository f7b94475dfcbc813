"""hetero-client: train this device's part of the model.

hetero-client --cut-layer 3 --server host:50051 --dataset cifar10 --shard 1/3
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from hetero_client.commands.cuts import cut_table, render
from hetero_client.data.partition import parse_shard
from hetero_client.data.shard import load_shard, load_test
from hetero_client.device_metrics import DeviceMetrics, exposed
from hetero_client.device_model import DeviceModel
from hetero_client.link.transport import ServerLink
from hetero_client.progress import Progress, Watcher
from hetero_client.settings import ClientSettings
from hetero_client.stopping import stoppable
from hetero_client.training.checkpointing import Keeping
from hetero_client.training.feedback_journal import JOURNAL_FILE, FeedbackJournal
from hetero_client.training.participation import Identity, Participation
from hetero_client.training.trainer import PrefixTrainer
from hetero_common.agreement.plan import Plan
from hetero_common.command import run_command, wide_console
from hetero_common.compute.device import Compute
from hetero_common.errors import SettingsError
from hetero_common.models import build_model
from hetero_common.records.cadence import Cadence
from hetero_common.records.checkpoints import CHECKPOINTS, CheckpointStore
from hetero_common.records.events import DeviceFinished, DeviceJoined
from hetero_common.records.logs import speak_as
from hetero_common.records.rundir import MODEL_FILE, PLAN_FILE, SETTINGS_FILE, RunDir
from hetero_common.settings import as_yaml
from hetero_common.version import __version__

log = logging.getLogger(__name__)


def main(flags: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run_command("hetero-client", ClientSettings, _run, flags)


def _run(settings: ClientSettings) -> None:
    if settings.list_cuts:
        _list_cuts(settings)
    elif settings.cut_layer is None:
        raise SettingsError("--cut-layer is missing: --list-cuts prints what each choice costs")
    else:
        link = ServerLink(
            settings.server,
            settings.connect_timeout,
            certs=settings.certs,
            token=settings.resolved_token(),
            insecure=settings.insecure,
        )
        with stoppable(), link:
            _take_part(settings, settings.cut_layer, link)


def _list_cuts(settings: ClientSettings) -> None:
    plan = Plan.model_validate(settings.expected())
    model = build_model(plan.model, num_classes=plan.classes, width=plan.width, stem=plan.stem)
    rows = cut_table(model, plan.image_size, plan.classes, plan.exit_head)
    wide_console().print(render(rows))


def _take_part(settings: ClientSettings, cut_layer: int, link: ServerLink) -> None:
    status = link.status()
    plan = status.plan
    settings.require(plan)
    client_id = settings.resolved_client_id()
    speak_as(client_id, plan.rounds)
    model = DeviceModel(plan, cut_layer, Compute(settings.device, plan.precision))
    shard = load_shard(settings, plan, *parse_shard(settings.shard), settings.cuts())
    test = load_test(settings.dataset, settings.data_dir, plan)
    steps = plan.steps_for(len(shard.labels))
    trainer = PrefixTrainer(plan, client_id, model, shard, steps)
    identity = Identity(client_id, status.run.run_id, len(shard.labels))
    log.info(
        "joining run %s: cut layer %d, %d images, %d steps a round, %d rounds",
        *(identity.run_id, cut_layer, identity.shard_size, steps, plan.rounds),
    )
    path = settings.run_dir or Path("runs") / client_id
    with (
        RunDir(path, tensorboard=settings.tensorboard) as run_dir,
        _watchers(settings, plan, identity, link) as watchers,
    ):
        _write_beginning(run_dir, settings, plan, identity)
        store = CheckpointStore(path / CHECKPOINTS, identity.run_id, model.fingerprint)
        # What is not averaged, nobody else has.
        seconds = settings.checkpoint_seconds if plan.averages_clients else 0.0
        journal = None
        if plan.feedback != "none":
            journal = FeedbackJournal(path / JOURNAL_FILE, identity.run_id)
        Participation(
            plan,
            identity,
            link,
            trainer,
            test,
            rule=settings.exit_rule,
            eval_samples=settings.eval_samples,
            record=run_dir.record,
            states=Keeping(store, Cadence(seconds)),
            journal=journal,
            watchers=watchers,
        ).run()
        metadata = {
            "cut_layer": str(cut_layer),
            "fingerprint": model.fingerprint,
            "classes": json.dumps(test.classes),
        }
        run_dir.write(MODEL_FILE, model.weights().to_bytes(metadata))
        run_dir.record(DeviceFinished(**link.traffic()))
    link.leave()
    log.info("done: weights and metrics are in %s", path)


@contextmanager
def _watchers(
    settings: ClientSettings, plan: Plan, identity: Identity, link: ServerLink
) -> Iterator[list[Watcher]]:
    """Open those who are told how it goes: the terminal, and whoever asks for metrics."""
    with Progress(plan.rounds, identity.client_id) as progress:
        if settings.http == "off":
            yield [progress]
            return
        about = {
            "client": identity.client_id,
            "cut_layer": str(settings.cut_layer),
            "run": identity.run_id,
        }
        metrics = DeviceMetrics(about, link.traffic)
        with exposed(metrics, settings.http, insecure=settings.insecure):
            yield [progress, metrics]


def _write_beginning(
    run_dir: RunDir, settings: ClientSettings, plan: Plan, identity: Identity
) -> None:
    run_dir.write(SETTINGS_FILE, as_yaml(settings))
    run_dir.write(PLAN_FILE, plan.model_dump_json(indent=2))
    run_dir.record(
        DeviceJoined(
            run=identity.run_id,
            client=identity.client_id,
            cut_layer=settings.cut_layer or 0,
            shard_size=identity.shard_size,
            version=__version__,
            torch=torch.__version__,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
