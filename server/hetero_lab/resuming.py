"""A simulated run at the ends of rounds, and how it is gone on with after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import yaml
from torch import Tensor

from hetero_common.errors import SettingsError
from hetero_common.records.cadence import Cadence
from hetero_common.records.checkpoints import (
    CHECKPOINTS,
    Checkpoint,
    CheckpointStore,
    nested,
    within,
)
from hetero_common.records.events import Started
from hetero_common.records.history import last_run, read_history
from hetero_common.records.rundir import SETTINGS_FILE
from hetero_common.settings import as_yaml
from hetero_lab.settings import SimulationSettings
from hetero_server.run.checkpointing import KEPT, require_unchanged, write_if_possible

_FREE = frozenset(
    {"run_dir", "resume", "checkpoint_seconds", "device", "threads", "tensorboard"}
    | {"log_level", "quiet", "verbose", "log_format"}
)


class Part(Protocol):
    """What a snapshot holds the state of."""

    def checkpoint(self) -> Mapping[str, Tensor]:
        """Everything it takes to go on from here."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a `checkpoint`."""


class JointStore(CheckpointStore):
    """Checkpoints that hold the states of all parts beside what they are written with.

    Args:
        folder: Where they are.
        run: Name of the run.
        parts: By their names.
    """

    def __init__(self, folder: Path, run: str, parts: Mapping[str, Part]) -> None:
        super().__init__(folder, run, fingerprint="simulation")
        self._parts = parts

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint as `CheckpointStore` does."""
        tensors = dict(checkpoint.tensors)
        for name, part in self._parts.items():
            tensors |= nested(f"parts/{name}", part.checkpoint())
        super().write(replace(checkpoint, tensors=tensors))

    def of_part(self, name: str, checkpoint: Checkpoint) -> Checkpoint:
        """Return what a checkpoint of this store holds of one part."""
        return Checkpoint(checkpoint.round, within(f"parts/{name}", checkpoint.tensors))

    def restore(self) -> Checkpoint | None:
        """The newest good checkpoint, if there is one; all parts go on from it."""
        newest = self.newest()
        if newest is not None:
            for name, part in self._parts.items():
                part.restore(self.of_part(name, newest).tensors)
        return newest


class Snapshots:
    """The place where a run is kept while it goes on.

    Args:
        run_dir: Its directory.
        run: Its name.
        cadence: Seconds between snapshots, at least.
    """

    def __init__(self, run_dir: Path, run: str, cadence: Cadence) -> None:
        self.cadence = cadence
        self._folder = run_dir / CHECKPOINTS
        self.run = run
        self._folder.mkdir(exist_ok=True)

    def store(self, name: str, parts: Mapping[str, Part]) -> JointStore:
        """Return the store for the states of some parts that are trained together."""
        return JointStore(self._folder / name, self.run, parts)

    def rounds(self, count: int, name: str, parts: Mapping[str, Part]) -> Iterator[int]:
        """The rounds that are still to be trained; after the last, and in between, parts are kept.

        Args:
            count: All rounds.
            name: Of what is trained in them.
            parts: What it is made of.
        """
        store = self.store(name, parts)
        newest = store.restore()
        self.cadence.begin()
        for round_ in range(0 if newest is None else newest.round + 1, count):
            yield round_
            if self.cadence.is_due or round_ + 1 == count:
                write_if_possible(store, Checkpoint(round_, {}))
                store.keep_newest(KEPT)
                self.cadence.begin()

    def drop(self) -> None:
        """The run is over: there is nothing to go on with."""
        shutil.rmtree(self._folder)


def decisive(settings: str) -> dict[str, Any]:
    """Return those settings, as YAML has them, that the result of a run depends on."""
    return {name: value for name, value in yaml.safe_load(settings).items() if name not in _FREE}


def require_resumable(run: Path, settings: SimulationSettings) -> str:
    """The name of the unfinished run in a directory.

    Raises:
        SettingsError: There is none, or it has other settings.
    """
    if not (run / CHECKPOINTS).is_dir():
        raise SettingsError(f"{run} holds no unfinished run: leave --resume out")
    held = (run / SETTINGS_FILE).read_text(encoding="utf-8")
    given = decisive(as_yaml(settings))
    require_unchanged(run, SimulationSettings, decisive(held), given)
    begun = last_run(read_history(run).whole())[0].event
    assert isinstance(begun, Started), "a simulation begins with it"
    return begun.run
