"""How our processes log: to standard error, in one format, each line with who speaks and when.

    17:56:25 INFO    [board-1 66/120] training exit loss 0.229, accuracy 92.2%
    {"time": "2026-01-31T17:56:25.103+00:00", "level": "info", "logger": "hetero_client.progress",
     "who": "board-1", "round": 65, "message": "training exit loss 0.229, accuracy 92.2%"}

The second is one line. Rounds count from 0 there, as in metrics.jsonl, and from 1 for people.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Literal

LogFormat = Literal["text", "json"]

_ROUND_SECONDS = 10.0


@dataclass(frozen=True)
class _Place:
    who: str = ""
    round: int | None = None
    rounds: int = 0

    def __str__(self) -> str:
        """Put who and which round in brackets, as far as they are known."""
        counted = "" if self.round is None else f"{self.round + 1}/{self.rounds}"
        known = " ".join(part for part in (self.who, counted) if part)
        return f"[{known}] " if known else ""


_place = _Place()


def speak_as(who: str, rounds: int) -> None:
    """Say whose lines those of this process are from now on, in a run of so many rounds."""
    global _place
    _place = _Place(who, None, rounds)


def enter_round(round_: int) -> None:
    """Say in which round this process is; a simulation, which speaks of no rounds, ignores it."""
    global _place
    if _place.rounds and _place.round != round_:
        _place = replace(_place, round=round_)


class RoundLines:
    """Which rounds have a line of their own at INFO: at most one in ten seconds, and the last."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._last = time.monotonic()

    def level(self, round_: int) -> int:
        """INFO for those, DEBUG for the others."""
        now = time.monotonic()
        if now - self._last < _ROUND_SECONDS and round_ + 1 != self._rounds:
            return logging.DEBUG
        self._last = now
        return logging.INFO


def start_logging(level: str, form: LogFormat) -> None:
    """Log from this level on; what was set up before is forgotten."""
    global _place
    _place = _Place()
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines() if form == "text" else _Objects())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _Lines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(place)s%(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.place = str(_place)
        return super().format(record)


class _Objects(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, timezone.utc)
        told: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "who": _place.who or None,
            "round": _place.round,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told)
