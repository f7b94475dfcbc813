"""hetero-server: train the deeper layers of a network whose first layers run on hetero-clients.

hetero-server --strategy sequential --clients 3
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from hetero_common.command import run_command
from hetero_common.compute.device import Compute
from hetero_common.errors import SettingsError
from hetero_common.records.cadence import Cadence
from hetero_common.records.checkpoints import CHECKPOINTS, CheckpointStore
from hetero_common.records.events import Event, Observer, Started
from hetero_common.records.history import read_history
from hetero_common.records.rundir import MODEL_FILE, PLAN_FILE, SETTINGS_FILE, RunDir
from hetero_common.settings import as_yaml
from hetero_common.version import __version__
from hetero_server.build import build_engine
from hetero_server.host import Host
from hetero_server.learning.initial_model import InitialModel
from hetero_server.run.checkpointing import Saving, require_resumable
from hetero_server.run.engine import Engine
from hetero_server.run.results import results_table
from hetero_server.run.served_model import ServedModel
from hetero_server.runner import Runner
from hetero_server.settings import ServerSettings

log = logging.getLogger(__name__)


def main(flags: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run_command("hetero-server", ServerSettings, _run, flags)


def _run(settings: ServerSettings) -> None:
    serve = settings.serve
    if serve is None:
        trained = asyncio.run(_train(settings))
        serve = trained if settings.then_serve else None
    if serve is not None:
        asyncio.run(_serve(settings, serve))


async def _train(settings: ServerSettings) -> Path | None:
    """Train to the end of the run: its directory, or None if it was left off before."""
    run_id = f"server-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    path = settings.resume or settings.run_dir or Path("runs") / run_id
    if settings.or_resume and (path / MODEL_FILE).exists():
        log.info("the run in %s is over", path)
        return path
    if (path / MODEL_FILE).exists():
        raise SettingsError(f"run directory {path} holds a finished run: choose another one")
    async with Host.open(settings) as host:
        initial = await host.compute.run(partial(InitialModel, settings.plan()))
        if settings.resume is not None:
            run_id = require_resumable(path, settings.plan())
        with RunDir(path, tensorboard=settings.tensorboard) as run_dir:
            run_dir.write(PLAN_FILE, settings.plan().model_dump_json(indent=2))
            # Clients know this address: a resumed run listens there again, whatever was asked for.
            bound = settings.model_copy(update={"listen": host.address})
            run_dir.write(SETTINGS_FILE, as_yaml(bound))
            run_dir.record(Started(run_id, __version__, torch.__version__))
            if settings.resume is not None:
                await host.compute.run(lambda: host.monitor.replay(read_history(path).recorded))
            observe = _both(run_dir.record, host.monitor.observe)
            begin = partial(_begin, settings, initial, run_dir.path, run_id, observe)
            engine = await host.compute.run(begin)
            async with host.training(engine, run_id) as runner:
                await _until_over(runner)
            return _conclude(runner, run_dir)


def _both(record: Observer, follow: Observer) -> Observer:
    def observe(event: Event) -> None:
        record(event)
        follow(event)

    return observe


def _begin(
    settings: ServerSettings, initial: InitialModel, run: Path, run_id: str, observe: Observer
) -> Engine:
    store = CheckpointStore(run / CHECKPOINTS, run_id, initial.fingerprint)
    engine = build_engine(
        initial,
        settings,
        Compute(settings.device, settings.precision),
        clients=settings.clients,
        credits=settings.credits,
        observe=observe,
        saving=Saving(store, settings.checkpoint_every, Cadence(settings.checkpoint_seconds)),
    )
    engine.begin(store.newest() if settings.resume else None)
    return engine


async def _until_over(runner: Runner) -> None:
    tasks = [asyncio.create_task(task) for task in (runner.run(), runner.attend())]
    over = asyncio.create_task(runner.over())
    _leave_off_on_signals(runner)
    await asyncio.wait((*tasks, over), return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    if not over.done():
        await asyncio.gather(*tasks)  # they end before the run only by an error


def _conclude(runner: Runner, run_dir: RunDir) -> Path | None:
    engine = runner.engine
    if runner.left_off:
        log.warning("%s: go on later with --resume %s", runner.left_off, run_dir.path)
        return None
    assert engine.model is not None, "a finished run has assembled its model"
    run_dir.write(MODEL_FILE, engine.model.to_bytes({"fingerprint": engine.initial.fingerprint}))
    Console().print(results_table(engine.members.values()))
    log.info("the run is done: weights and metrics are in %s", run_dir.path)
    return run_dir.path


def _leave_off_on_signals(runner: Runner) -> None:
    """The first signal lets the step in hand finish; a second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def leave_off(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        runner.leave_off(f"stopped by {number.name}")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave_off, number)


async def _serve(settings: ServerSettings, run: Path) -> None:
    async with Host.open(settings) as host:
        model = await host.compute.run(partial(ServedModel, run, settings.device))
        async with host.serving(model, run.name):
            log.info("answering predictions with the model of %s", run)
            await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
