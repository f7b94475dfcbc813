"""What a person sees of a client's training: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from hetero_common.control import Evaluation, RoundDone

log = logging.getLogger(__name__)

_LINE_SECONDS = 10.0


class Progress:
    """Counts rounds; on a terminal as a bar, elsewhere as a line every ten seconds.

    Args:
        rounds: Rounds of the run.
        name: The client's id.
    """

    def __init__(self, rounds: int, name: str) -> None:
        self._rounds = rounds
        self._name = name
        self._last_line = time.monotonic()
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
        elif self._line_is_due() or report.round + 1 == self._rounds:
            log.info("round %d/%d: training %s", report.round + 1, self._rounds, note)

    def evaluating(self, samples: int) -> None:
        """An evaluation starts."""
        if self._bars is not None:
            self._bars.update(self._task, note=f"evaluating on {samples} images")

    def evaluated(self, evaluation: Evaluation) -> None:
        """An evaluation is done; it is always worth a line."""
        log.info(
            "round %d/%d: exit %.1f %%, server %.1f %%, at threshold %g: %.1f %% with %.1f %% "
            "offloaded, of %d images",
            evaluation.round + 1,
            self._rounds,
            100 * evaluation.exit_accuracy,
            100 * evaluation.server_accuracy,
            evaluation.threshold,
            100 * evaluation.threshold_accuracy,
            100 * evaluation.offload_share,
            evaluation.samples,
        )

    def _line_is_due(self) -> bool:
        now = time.monotonic()
        due = now - self._last_line >= _LINE_SECONDS
        if due:
            self._last_line = now
        return due

    def __enter__(self) -> Progress:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
