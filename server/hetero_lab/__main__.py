"""hetero-sim: train many clients and their server in one process.

hetero-sim --strategy averaging --clients 12 --cut-layers 3,4,5 --dataset cifar10
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch

from hetero_common.command import run_command
from hetero_common.records.cadence import Cadence
from hetero_common.records.checkpoints import CHECKPOINTS
from hetero_common.records.events import Evaluated, Event, Observer, Started
from hetero_common.records.rundir import PLAN_FILE, SETTINGS_FILE, RunDir
from hetero_common.settings import as_yaml
from hetero_common.version import __version__
from hetero_lab.methods import METHODS
from hetero_lab.resuming import Snapshots, require_resumable
from hetero_lab.settings import SimulationSettings

log = logging.getLogger(__name__)


def main(flags: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run_command("hetero-sim", SimulationSettings, _run, flags)


def _run(settings: SimulationSettings) -> None:
    method = METHODS[settings.method]
    settings = method.adapt(settings)
    name = f"sim-{datetime.now():%Y%m%d-%H%M%S}"
    path = settings.resume or settings.run_dir or Path("runs") / name
    if settings.resume is not None:
        name = require_resumable(path, settings)
    train = method.prepare(settings)
    with RunDir(path, tensorboard=settings.tensorboard) as run_dir:
        if settings.resume is None:
            shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)
            run_dir.write(SETTINGS_FILE, as_yaml(settings))
            run_dir.write(PLAN_FILE, settings.plan().model_dump_json(indent=2))
        snapshots = Snapshots(path, name, Cadence(settings.checkpoint_seconds))
        run_dir.record(Started(name, __version__, torch.__version__))
        try:
            train(run_dir, _observer(run_dir), snapshots)
        except KeyboardInterrupt:
            log.warning("stopped: go on later with --resume %s", path)
            raise
        snapshots.drop()
    log.info("the run is done: weights and metrics are in %s", path)


def _observer(run_dir: RunDir) -> Observer:
    def observe(event: Event) -> None:
        run_dir.record(event)
        if event.kind == Evaluated.kind:
            # What moved on the way, the curve, and what is told per class, are for reports.
            shown = {
                name: round(value, 4) if isinstance(value, float) else value
                for name, value in event.record().items()
                if not isinstance(value, (list, tuple)) and not name.startswith("bytes_")
            }
            log.info("evaluation %s", shown)

    return observe


if __name__ == "__main__":
    sys.exit(main())
