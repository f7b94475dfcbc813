"""A run directory: what was set, what happened, what was learned. Documented in docs/runs.md."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hetero_common.errors import SettingsError
from hetero_common.plan import Plan

SETTINGS_FILE = "settings.yaml"
PLAN_FILE = "plan.json"
METRICS_FILE = "metrics.jsonl"
MODEL_FILE = "model.safetensors"


class RunDir:
    """Writes one run directory.

    Args:
        path: Created if missing.

    Raises:
        SettingsError: It can not be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = time.monotonic()
        try:
            path.mkdir(parents=True, exist_ok=True)
            metrics = path / METRICS_FILE
            torn = metrics.exists() and not metrics.read_bytes().endswith(b"\n")
            self._metrics = metrics.open("a", encoding="utf-8")
            if torn:  # a kill cut its last line short; what follows starts on a line of its own
                self._metrics.write("\n")
        except OSError as error:
            raise SettingsError(f"--run-dir {path} can not be written: {error.strerror}") from None

    def event(self, kind: str, **fields: Any) -> None:
        """Append one object to metrics.jsonl; `seconds` counts from the start of this process."""
        seconds = round(time.monotonic() - self._start, 3)
        line = json.dumps(
            {"event": kind, "time": round(time.time(), 3), "seconds": seconds} | fields
        )
        self._metrics.write(line + "\n")
        self._metrics.flush()

    def write(self, name: str, data: str | bytes) -> None:
        """Write a file whole or not at all."""
        write_whole(self.path / name, data.encode() if isinstance(data, str) else data)

    def close(self) -> None:
        """Close metrics.jsonl."""
        self._metrics.close()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
        OSError: It can not be written; what was there before still is.
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


def read_events(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's metrics.jsonl; a line cut short by a kill is left out."""
    events = []
    for line in (path / METRICS_FILE).read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events
