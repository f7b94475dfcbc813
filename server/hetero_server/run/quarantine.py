"""Who is sent away for what it sent, and does not come back in this run."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping

from hetero_common.agreement.plan import Plan
from hetero_common.errors import Quarantined
from hetero_common.records.events import LeftOut, Observer, QuarantineEntered
from hetero_server.learning.outliers import Outlier, RecentSteps, harmless
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.run.member import Batch, Member, MemberState
from hetero_server.run.roster import Roster
from hetero_server.run.work import BoundaryWork

log = logging.getLogger(__name__)

_WORDS = {
    "server_loss": "the server's losses",
    "gradient_norm": "the server's gradients",
    "activation_peak": "its activations",
    "update_norm": "the weights that it pushed",
    "buffers_norm": "the BatchNorm statistics that it pushed",
}
"""Of the statistics of docs/runs.md, for the client's user."""

REMEMBERED = 32
"""Steps, and pushes, of a client whose verdicts are remembered."""


class Quarantine:
    """Counts the outliers of each client; one too many is its last.

    Verdicts are kept by client id, so that registering again does not clear them.

    Args:
        plan: The agreement of the run.
        roster: Dismisses who is sent away.
        observe: Told of each.
        limit: Outliers among the last `REMEMBERED` that send a client away; 0: nobody is.
    """

    def __init__(self, plan: Plan, roster: Roster, observe: Observer, limit: int) -> None:
        self.held: dict[str, str] = {}
        """Who was sent away, and for which statistic."""
        self._roster = roster
        self._observe = observe
        self._limit = limit
        self._recent = RecentSteps(harmless(plan))
        self._verdicts: dict[tuple[str, str], deque[bool]] = {}

    def require_admitted(self, client_id: str) -> None:
        """Raise Quarantined if this client was sent away."""
        if client_id in self.held:
            raise Quarantined(client_id, _WORDS[self.held[client_id]])

    def judge_step(self, member: Member, batch: Batch, outcome: StepOutcome) -> bool:
        """Hold an applied step against the other clients' steps; True if it is an outlier."""
        others = [other for other in self._roster.participants() if other is not member]
        outlier = self._recent.judge(
            member.client_id, outcome.statistics(), [other.client_id for other in others]
        )
        if outlier is not None:
            member.progress.tally.outliers += 1
        self._count(member, "steps", outlier, batch.round, batch.step)
        return outlier is not None

    def judge_push(self, member: Member, outlier: Outlier | None, round_: int) -> None:
        """Count whether the weights that a client has pushed were left out of the averages."""
        if member.progress.pushed is None:
            return
        if outlier is not None:
            log.warning(
                "round %d leaves out the weights of client %s: %s is %.3g, usually %.3g",
                *(round_, member.client_id, outlier.statistic, outlier.value, outlier.usual),
            )
            self._observe(LeftOut(member.client_id, round_, **vars(outlier)))
        self._count(member, "pushes", outlier, round_, None)

    def cleared(self, work: BoundaryWork) -> BoundaryWork:
        """Leave out what those who were sent away would have given to a boundary."""
        given = [part for part in work.contributions if part.client_id not in self.held]
        return BoundaryWork(work.round, given, work.shared)

    def restore(self, held: Mapping[str, str]) -> None:
        """Keep out whom the run that is resumed has kept out."""
        self.held |= held

    def _count(
        self, member: Member, kind: str, outlier: Outlier | None, round_: int, step: int | None
    ) -> None:
        verdicts = self._verdicts.setdefault((member.client_id, kind), deque(maxlen=REMEMBERED))
        verdicts.append(outlier is not None)
        if outlier is None or not self._limit or sum(verdicts) < self._limit:
            return
        client_id = member.client_id
        log.warning(
            "client %s is sent away: %d of its last %d %s were outliers; %s is %.3g, usually %.3g",
            *(client_id, sum(verdicts), len(verdicts), kind),
            *(outlier.statistic, outlier.value, outlier.usual),
        )
        self._observe(QuarantineEntered(client_id, round_, step, **vars(outlier)))
        self.held[client_id] = outlier.statistic
        error = Quarantined(client_id, _WORDS[outlier.statistic])
        self._roster.dismiss(member, MemberState.EVICTED, error, round_)
