"""How long a round waits for those who are missing, slow or silent.

A round goes on without a client

- when enough others are done (the quorum) and it has lasted longer than rounds usually do:
  median + 4 x MAD of the last ones, but never less than `patience`;
- when nothing at all has come from it for as long, and others wait for it.

So a client that is frozen, gone or far too slow delays the others once for that long. What it sent
in time counts; when it is back, it joins the next round. A client whose batches are queued here is
neither silent nor slow: it waits for the server. Who registers and then does not open its stream
for `patience` is not there either. The time is told from outside.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

from hetero_server.run.engine import Engine
from hetero_server.run.member import Member, MemberState
from hetero_server.run.phase import Phase

_MADS = 4.0
_REMEMBERED = 20  # rounds


@dataclass(frozen=True)
class _Seen:
    """How far a member had come, and since when it has been there."""

    activity: int
    since: float


@dataclass
class Stragglers:
    """Releases the members of an engine that are waited for in vain.

    Args:
        engine: Asked whom it waits for.
        patience: Seconds that are always waited.
        quorum: Share of a round's clients that must be done before the slow are left behind.
    """

    engine: Engine
    patience: float
    quorum: float
    _durations: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _stage: tuple[Phase, int] | None = None
    _since: float = 0.0
    _held_up: bool = False
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _unopened: dict[int, float] = field(default_factory=dict)

    def look(self, now: float) -> None:
        """Look who is missing; call it about once a second with a monotonic clock's seconds."""
        engine = self.engine
        self._lose_those_without_a_stream(now)
        if (engine.phase, engine.round) != self._stage:
            self._enter_stage(now)
        self._note_progress(now)
        if engine.phase not in (Phase.TRAINING, Phase.EVALUATING):
            return
        awaited = engine.roster.awaited()
        missing = [member for member in awaited if not self._is_done(member)]
        done, limit = len(awaited) - len(missing), self.limit()
        enough = done and done >= self.quorum * len(awaited) and now - self._since > limit
        for member in missing:
            if member.progress.queue:
                continue
            silent = now - self._seen[member.client_id].since
            if enough:
                self._release(member, f"{done} of {len(awaited)} are done")
            elif silent > limit and self._others_wait(member, awaited, done):
                self._release(member, f"nothing came from it for {silent:.0f} s")
            if (engine.phase, engine.round) != self._stage:
                return  # the round is over: the next look sees what has become of it

    def is_overdue(self, now: float) -> bool:
        """Whether the run has been over for so long that nobody's farewell is waited for."""
        return self.engine.phase is Phase.FINISHED and now - self._since > self.limit()

    def _lose_those_without_a_stream(self, now: float) -> None:
        members = self.engine.members.values()
        unopened = [m for m in members if m.state is MemberState.REGISTERED and not m.attached]
        self._unopened = {id(m): self._unopened.get(id(m), now) for m in unopened}
        for member in unopened:
            if now - self._unopened[id(member)] > self.patience:
                self.engine.detach(member.client_id, MemberState.STALE)

    def _release(self, member: Member, why: str) -> None:
        self._held_up = True  # how long this round took says nothing of the next ones
        self.engine.release(member.client_id, why)

    def limit(self) -> float:
        """Seconds that are waited at present."""
        if not self._durations:
            return self.patience
        median = statistics.median(self._durations)
        deviation = statistics.median(abs(d - median) for d in self._durations)
        return max(self.patience, median + _MADS * deviation)

    def _enter_stage(self, now: float) -> None:
        if self._stage is not None and self._stage[0] is Phase.TRAINING and not self._held_up:
            self._durations.append(now - self._since)
        self._held_up = False
        self._stage, self._since = (self.engine.phase, self.engine.round), now
        self._seen.clear()

    def _note_progress(self, now: float) -> None:
        for member in self.engine.members.values():
            seen = self._seen.get(member.client_id)
            is_active = seen is None or seen.activity != member.activity
            if is_active or member.progress.queue:
                self._seen[member.client_id] = _Seen(member.activity, now)

    def _is_done(self, member: Member) -> bool:
        if self.engine.phase is Phase.EVALUATING:
            return member.progress.evaluation is not None
        return member.is_done

    def _others_wait(self, member: Member, awaited: list[Member], done: int) -> bool:
        """Whether somebody who is there is held up by this member."""
        others = (other.attached and other.is_awaited for other in awaited if other is not member)
        return any(others) and (done > 0 or member in self.engine.turn())
