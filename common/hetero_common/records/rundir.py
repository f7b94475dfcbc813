"""A run directory: what was set, what happened, what was learned. Documented in docs/runs.md."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path

from pydantic import ValidationError

from hetero_common.agreement.plan import Plan
from hetero_common.errors import HeteroError, SettingsError
from hetero_common.records.events import Event
from hetero_common.records.tensorboard import TensorBoard

log = logging.getLogger(__name__)

SETTINGS_FILE = "settings.yaml"
PLAN_FILE = "plan.json"
METRICS_FILE = "metrics.jsonl"
MODEL_FILE = "model.safetensors"


class RunDir:
    """Writes one run directory.

    Args:
        path: Created if missing.
        tensorboard: Write event files of TensorBoard, too.

    Raises:
        SettingsError: It cannot be written, or TensorBoard is not installed.
    """

    def __init__(self, path: Path, *, tensorboard: bool = False) -> None:
        self.path = path
        self._start = time.monotonic()
        self._board = TensorBoard(path) if tensorboard else None
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._metrics = _Lines(path / METRICS_FILE)
        except OSError as error:
            raise SettingsError(f"--run-dir {path} cannot be written: {error.strerror}") from None

    def record(self, event: Event) -> None:
        """Append an event to metrics.jsonl; `seconds` counts from the start of this process.

        While it cannot be written, events are held in memory.
        """
        seconds = round(time.monotonic() - self._start, 3)
        head = {"event": event.kind, "time": round(time.time(), 3), "seconds": seconds}
        fields = event.record()
        self._metrics.append(json.dumps(head | fields))
        if self._board is not None:
            self._board.event(event.kind, fields)

    def write(self, name: str, data: str | bytes) -> None:
        """Write a file whole or not at all.

        Raises:
            HeteroError: It cannot be written; what was there before still is.
        """
        try:
            write_whole(self.path / name, data.encode() if isinstance(data, str) else data)
        except OSError as error:
            raise HeteroError(
                f"{self.path / name} cannot be written ({error.strerror}): make room, then start "
                "again from the last checkpoint"
            ) from None

    def close(self) -> None:
        """Close metrics.jsonl, and the event files."""
        if self._board is not None:
            self._board.close()
        self._metrics.close()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Lines:
    """A file that lines are appended to; one that cannot be is appended as soon as it can."""

    def __init__(self, path: Path) -> None:
        self._path = path
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        self._file = path.open("ab", buffering=0)
        # A kill cut its last line short: what follows starts on a line of its own.
        self._unwritten = bytearray(b"\n" if torn else b"")
        self._is_behind = False
        self._lock = threading.Lock()

    def append(self, line: str) -> None:
        with self._lock:
            self._unwritten += line.encode() + b"\n"
            try:
                while self._unwritten:
                    del self._unwritten[: self._file.write(self._unwritten)]
            except OSError as error:
                self._fall_behind(error)
            else:
                self._catch_up()

    def close(self) -> None:
        if self._is_behind:
            log.error("the last events could not be written to %s: they are lost", self._path)
        self._file.close()

    def _fall_behind(self, error: OSError) -> None:
        if not self._is_behind:
            log.error(
                "%s cannot be written (%s): the run goes on, its events are held in memory",
                self._path,
                error.strerror,
            )
        self._is_behind = True

    def _catch_up(self) -> None:
        if self._is_behind:
            log.warning("%s can be written again: no event is lost", self._path)
        self._is_behind = False


def read_plan(run: Path) -> Plan:
    """The agreement of a run directory.

    Raises:
        SettingsError: It is none.
    """
    try:
        return Plan.model_validate_json((run / PLAN_FILE).read_bytes())
    except (OSError, ValidationError):
        raise SettingsError(f"{run} is no run directory: it has no valid {PLAN_FILE}") from None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, even through a power cut: temporary file, fsync, rename.

    Raises:
        OSError: It cannot be written; what was there before still is.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name
    finally:
        os.close(directory)
