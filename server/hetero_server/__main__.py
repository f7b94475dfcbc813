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

from hetero_common.checkpoints import CHECKPOINTS, CheckpointStore
from hetero_common.command import run_command
from hetero_common.compute import Compute
from hetero_common.errors import SettingsError
from hetero_common.rundir import MODEL_FILE, PLAN_FILE, SETTINGS_FILE, RunDir
from hetero_common.settings import as_yaml
from hetero_common.version import __version__
from hetero_server.build import build_engine
from hetero_server.engine import Engine
from hetero_server.host import Host
from hetero_server.initial import InitialModel, load_run
from hetero_server.orders import arrival
from hetero_server.phase import Phase
from hetero_server.results import results_table
from hetero_server.runner import Runner
from hetero_server.saving import Saving, require_resumable
from hetero_server.settings import ServerSettings
from hetero_server.strategies.sequential import Sequential

log = logging.getLogger(__name__)


def main(flags: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run_command("hetero-server", ServerSettings, _run, flags)


def _run(settings: ServerSettings) -> None:
    asyncio.run(_train(settings) if settings.serve is None else _serve(settings, settings.serve))


async def _train(settings: ServerSettings) -> None:
    run_id = f"server-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    path = settings.resume or settings.run_dir or Path("runs") / run_id
    if (path / MODEL_FILE).exists():
        raise SettingsError(f"run directory {path} holds a finished run: choose another one")
    async with Host.open(settings) as host:
        initial = await host.compute.run(partial(InitialModel, settings.plan()))
        if settings.resume is not None:
            run_id = require_resumable(path, settings.plan())
        with RunDir(path) as run_dir:
            run_dir.write(PLAN_FILE, settings.plan().model_dump_json(indent=2))
            # Clients know this address: a resumed run listens there again, whatever was asked for.
            bound = settings.model_copy(update={"listen": host.address})
            run_dir.write(SETTINGS_FILE, as_yaml(bound))
            run_dir.event("started", run=run_id, version=__version__, torch=torch.__version__)
            engine = await host.compute.run(partial(_begin, settings, initial, run_dir, run_id))
            async with host.serving(engine, run_id) as runner:
                await _until_over(runner)
            _conclude(runner, run_dir)


def _begin(settings: ServerSettings, initial: InitialModel, run_dir: RunDir, run_id: str) -> Engine:
    store = CheckpointStore(run_dir.path / CHECKPOINTS, run_id, initial.fingerprint)
    engine = build_engine(
        initial,
        settings,
        Compute(settings.device, settings.precision),
        clients=settings.clients,
        credits=settings.credits,
        observe=run_dir.event,
        saving=Saving(store, settings.checkpoint_every, settings.checkpoint_seconds),
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


def _conclude(runner: Runner, run_dir: RunDir) -> None:
    engine = runner.engine
    if runner.left_off:
        log.warning("%s: go on later with --resume %s", runner.left_off, run_dir.path)
        return
    assert engine.model is not None, "a finished run has assembled its model"
    run_dir.write(MODEL_FILE, engine.model.to_bytes({"fingerprint": engine.initial.fingerprint}))
    Console().print(results_table(engine.members.values()))
    log.info("the run is done: weights and metrics are in %s", run_dir.path)


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
        engine = await host.compute.run(partial(_finished, settings, run))
        async with host.serving(engine, run.name):
            log.info("answering predictions with the model of %s", run)
            await asyncio.Event().wait()


def _finished(settings: ServerSettings, run: Path) -> Engine:
    initial = load_run(run)
    plan = initial.plan
    strategy = Sequential(plan, Compute(settings.device, plan.precision), initial.fresh)
    strategy.add("everyone", cut_layer=1)
    engine = Engine(plan, initial, strategy, arrival)
    engine.phase = Phase.SERVING
    return engine


if __name__ == "__main__":
    sys.exit(main())
