"""What a person sees of a client's training: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from hetero_common.agreement.control import Evaluation, RoundDone
from hetero_common.records.logs import RoundLines

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Told how a client's training goes."""

    def step(self, round_: int, step: int, steps: int) -> None:
        """A mini-batch is trained and sent."""

    def round_done(self, report: RoundDone) -> None:
        """A round is over."""

    def evaluating(self, samples: int) -> None:
        """An evaluation starts."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """An evaluation is done."""

    def rejoined(self) -> None:
        """The server was lost, and is found again."""


class Progress(Watcher):
    """Counts rounds; on a terminal as a bar, elsewhere as a line, at most one in ten seconds.

    Args:
        rounds: Rounds of the run.
        name: The client's id, beside the bar.
    """

    def __init__(self, rounds: int, name: str) -> None:
        self._lines = RoundLines(rounds)
        self._bars: Bars | None = None
        if sys.stderr.isatty():
            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._task = self._bars.add_task(name, total=rounds, note="waiting for a round")

    def step(self, round_: int, step: int, steps: int) -> None:
        """A mini-batch is trained and sent."""
        if self._bars is not None:
            self._bars.update(self._task, completed=round_ + (step + 1) / steps)

    def round_done(self, report: RoundDone) -> None:
        """A round is over."""
        note = f"exit loss {report.exit_loss:.3f}, accuracy {report.exit_accuracy:.1%}"
        if self._bars is not None:
            self._bars.update(self._task, completed=report.round + 1, note=note)
        else:
            log.log(self._lines.level(report.round), "training %s", note)

    def evaluating(self, samples: int) -> None:
        """An evaluation starts."""
        if self._bars is not None:
            self._bars.update(self._task, note=f"evaluating on {samples} images")

    def evaluated(self, evaluation: Evaluation) -> None:
        """An evaluation is done; it is always worth a line."""
        log.info(
            "exit %.1f %%, server %.1f %%, at threshold %g: %.1f %% with %.1f %% "
            "offloaded, of %d images",
            100 * evaluation.exit_accuracy,
            100 * evaluation.server_accuracy,
            evaluation.threshold,
            100 * evaluation.threshold_accuracy,
            100 * evaluation.offload_share,
            evaluation.samples,
        )

    def rejoined(self) -> None:
        """The server was lost, and is found again."""
        log.info("found the server again")

    def __enter__(self) -> Progress:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
