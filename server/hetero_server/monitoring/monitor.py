"""The one thing that a server tells what happens, and asks how it stands."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from hetero_common.agreement.plan import Plan
from hetero_common.agreement.status import MemberStatus, RunStatus
from hetero_common.records.events import Event
from hetero_common.records.history import Recorded
from hetero_common.records.logs import RoundLines
from hetero_server.monitoring.chronicle import Chronicle
from hetero_server.monitoring.metrics import Metrics
from hetero_server.monitoring.readings import Readings
from hetero_server.monitoring.watched import Watched
from hetero_server.run.member import Member
from hetero_server.run.phase import Phase
from hetero_server.run.work import BoundaryWork, Outcome, Work

log = logging.getLogger(__name__)


class Monitor:
    """Follows one server, from before its model is loaded.

    Args:
        series: Clients that have metrics of their own.
        clock: Tells seconds since 1970.

    Attributes:
        metrics: What is counted.
        chronicle: What the run has told.
    """

    def __init__(self, series: int = 0, clock: Callable[[], float] = time.time) -> None:
        self.metrics = Metrics()
        self.chronicle = Chronicle(clock)
        self._series = series
        self._clock = clock
        self._run: Watched | None = None
        self._about: tuple[str, str] = ("", "")

    def observe(self, event: Event) -> None:
        """An event of the run, as docs/runs.md describes them."""
        self.chronicle.observe(event)
        self.metrics.observe(event)

    def replay(self, recorded: Iterable[Recorded]) -> None:
        """Take in what the run recorded before this process took it up; safe in any thread."""
        chronicle = Chronicle(self._clock)
        chronicle.replay(recorded)
        self.chronicle = chronicle

    def performed(self, work: Work, outcome: Outcome, seconds: float) -> None:
        """A piece of computing is done and booked, and took so long."""
        self.metrics.performed(work, outcome, seconds)
        if isinstance(work, BoundaryWork) and self._run is not None:
            self._log_round(work.round, self._run.plan.rounds)

    def watch(self, run: Watched, run_id: str, strategy: str) -> None:
        """There is a run to look at."""
        self._run, self._about = run, (run_id, strategy)
        self._lines = RoundLines(run.plan.rounds)
        about = {"run": run_id, "strategy": strategy, "model": run.plan.model}
        self.metrics.expose(Readings(run, self.chronicle, about, self._series))

    def status(self) -> RunStatus | None:
        """Return how the run stands; None before there is one."""
        run = self._run
        if run is None:
            return None
        saved_at = self.chronicle.saved_at
        members = sorted(run.members.values(), key=lambda m: (m.cut_layer, m.client_id))
        return RunStatus(
            *(self._about[0], run.phase.name, self._about[1], run.plan.model),
            round=run.round,
            rounds=run.plan.rounds,
            seconds_left=self._seconds_left(run.phase, run.plan),
            saved_seconds=None if saved_at is None else max(0.0, self._clock() - saved_at),
            members=tuple(self._member(member) for member in members),
        )

    def _log_round(self, round_: int, rounds: int) -> None:
        level = self._lines.level(round_)
        if not log.isEnabledFor(level):
            return
        losses = self.chronicle.losses.newest()["all"]
        parts = [f"{name.partition('_')[0]} loss {loss:.3f}" for name, loss in losses.items()]
        left = self.chronicle.seconds_left(rounds)
        log.log(level, "%s", ", ".join(parts) + ("" if left is None else f", {left:.0f} s left"))

    def _seconds_left(self, phase: Phase, plan: Plan) -> float | None:
        if phase in (Phase.FINISHED, Phase.SERVING, Phase.WAITING):
            return None
        return self.chronicle.seconds_left(plan.rounds)

    def _member(self, member: Member) -> MemberStatus:
        last = self.chronicle.evaluations.get(member.client_id)
        heard = member.heard_at
        return MemberStatus(
            member.client_id,
            member.cut_layer,
            member.state.name,
            member.identity.shard_size,
            member.samples,
            self.chronicle.samples_per_second(member.client_id),
            member.traffic.bytes_in,
            member.traffic.bytes_out,
            None if heard is None else max(0.0, self._clock() - heard),
            len(member.progress.queue),
            last.exit_accuracy if last else None,
            last.server_accuracy if last else None,
            last.threshold_accuracy if last else None,
            last.offload_share if last else None,
        )
