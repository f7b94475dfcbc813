"""A side's state at the end of a round, kept in files that are whole, recognised and few.

A checkpoint is one safetensors file. Its name holds the round and the beginning of the SHA-256 of
its content, and its metadata the run and the model it belongs to, so that a file that is cut short,
damaged or of another run is never mistaken for a good one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from hetero_common.records.rundir import write_whole
from hetero_common.tensors.weights import tensors_to_bytes

log = logging.getLogger(__name__)

_NAME = re.compile(r"round([0-9]{7})-([0-9a-f]{16})\.safetensors")
CHECKPOINTS = "checkpoints"
"""Their folder in a run directory."""
BEFORE_FIRST = -1
"""Round of a state that has not been trained yet."""


@dataclass(frozen=True)
class Checkpoint:
    """A side's state at the end of a round.

    Attributes:
        round: Counted from 0; `BEFORE_FIRST` for the state before the first.
        tensors: Everything numeric, by name.
        record: Everything else, as JSON has it.
    """

    round: int
    tensors: Mapping[str, Tensor]
    record: Mapping[str, Any] = field(default_factory=dict)


class CheckpointStore:
    """The checkpoints of one side of one run, in one directory.

    Args:
        folder: Created with the first checkpoint.
        run: Id of the run.
        fingerprint: Of its model.
    """

    def __init__(self, folder: Path, run: str, fingerprint: str) -> None:
        self.folder = folder
        self._owner = {"run": run, "fingerprint": fingerprint}
        self._verdicts: dict[str, _Verdict] = {}

    def write(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint; it replaces one of the same round.

        Raises:
            OSError: It cannot be written; all others are as they were.
        """
        numbered = str(checkpoint.round)
        metadata = self._owner | {"round": numbered, "record": json.dumps(checkpoint.record)}
        data = tensors_to_bytes(checkpoint.tensors, metadata)
        self.folder.mkdir(parents=True, exist_ok=True)
        older = [path for round_, path in self._files() if round_ == checkpoint.round]
        name = f"round{checkpoint.round + 1:07d}-{_digest(data)}.safetensors"
        write_whole(self.folder / name, data)
        self._verdicts[name] = _Verdict(_stamp(self.folder / name), is_good=True)
        for path in older:
            if path.name != name:
                self._delete(path)

    def rounds(self) -> list[int]:
        """Rounds of which there is a good checkpoint, ascending.

        A file is read once, unless its size or time changes: one that is damaged later on may be
        named here still, until `load` has found out.
        """
        return sorted({round_ for round_, path in self._files() if self._is_good(path)})

    def load(self, round_: int) -> Checkpoint | None:
        """The good checkpoint of this round, if there is one; read and checked anew."""
        return next(self._good(round_), None)

    def newest(self) -> Checkpoint | None:
        """The newest good checkpoint; of those that are not good, a warning says so."""
        return next(self._good(), None)

    def remove(self, round_: int) -> None:
        """Delete the checkpoint of a round, if there is one."""
        for of, path in self._files():
            if of == round_:
                self._delete(path)

    def prune(self, keep_from: int) -> None:
        """Delete the checkpoints of all rounds before `keep_from`."""
        for round_, path in self._files():
            if round_ < keep_from:
                self._delete(path)

    def keep_newest(self, count: int) -> int:
        """Delete all but the newest `count`; returns the oldest round that is left."""
        rounds = sorted({round_ for round_, _ in self._files()})[-count:]
        oldest = rounds[0] if rounds else BEFORE_FIRST
        self.prune(oldest)
        return oldest

    def _files(self) -> list[tuple[int, Path]]:
        """Round and path of every checkpoint by its name, newest first."""
        if not self.folder.is_dir():
            return []
        named = [(_NAME.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return sorted(((int(m[1]) - 1, path) for m, path in named if m is not None), reverse=True)

    def _good(self, only: int | None = None) -> Iterator[Checkpoint]:
        for round_, path in self._files():
            if only in (None, round_):  # none is read, and hashed, for nothing
                checkpoint = self._read(path)
                if checkpoint is not None:
                    yield checkpoint

    def _is_good(self, path: Path) -> bool:
        verdict = self._verdicts.get(path.name)
        if verdict is not None and verdict.stamp == _stamp(path):
            return verdict.is_good
        return self._read(path) is not None

    def _read(self, path: Path) -> Checkpoint | None:
        """Read a file; None if it is damaged."""
        stamp, checkpoint = _stamp(path), None
        try:
            checkpoint = self._parse(path)
        except _OfAnotherRun as error:
            log.debug("checkpoint %s is not used: %s", path, error)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            log.warning("checkpoint %s is not used: %s", path, error)
        self._verdicts[path.name] = _Verdict(stamp, checkpoint is not None)
        return checkpoint

    def _parse(self, path: Path) -> Checkpoint:
        data = path.read_bytes()
        if _digest(data) not in path.name:
            raise ValueError("it is cut short or damaged")
        metadata = _metadata(path)
        if {name: metadata.get(name) for name in self._owner} != self._owner:
            raise _OfAnotherRun(f"it belongs to run {metadata.get('run')}, or to another model")
        return Checkpoint(int(metadata["round"]), load(data), json.loads(metadata["record"]))

    def _delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._verdicts.pop(path.name, None)


@dataclass(frozen=True)
class _Verdict:
    """What was found in a file that had this size and time."""

    stamp: tuple[int, int]
    is_good: bool


class _OfAnotherRun(Exception):
    """A directory is used again; what is left of its last run is none of this one's business."""


def nested(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under names that begin with `prefix`."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def within(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what `nested` has put under `prefix`, by its own names."""
    start = f"{prefix}/"
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


def _stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def owner_of(folder: Path) -> str | None:
    """Id of the run that the newest whole checkpoint below `folder` belongs to."""
    for path in sorted(folder.glob("round*.safetensors"), reverse=True):
        try:
            if _digest(path.read_bytes()) in path.name:
                return _metadata(path)["run"]
        except (OSError, SafetensorError, KeyError):
            continue
    return None
