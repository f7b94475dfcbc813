"""Anything, in any order: clients and work as a state machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hetero_common.agreement.control import RoundDone
from hetero_common.errors import (
    LimitExceeded,
    RefusedInput,
    StepGap,
)
from hetero_lab.report.audit import audit
from hetero_server.run.member import GONE, Member, MemberState
from hetero_server.run.orders import ORDERS, Order, arrival, interleaved
from hetero_server.run.phase import Phase
from hetero_server.run.work import BoundaryWork, JoinWork, LeaveWork, Outcome, Work
from support.client_session import Session
from support.engine_run import Run, a_batch, an_evaluation, hand_in
from support.events import recorded


def choose(sessions: Sequence[Session], pick: int) -> Session:
    return sessions[pick % len(sessions)]


class AnyRun(RuleBasedStateMachine):
    """Clients come, send, misbehave and go while at most one piece of work is being computed."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Session] = []
        self.in_flight: Work | None = None
        self.outcome: Outcome = None
        self.is_performed = False
        self.closed: list[int] = []
        self.has_started = False
        self.values = 0

    @initialize(
        clients=st.integers(1, 3),
        credits=st.integers(1, 3),
        order=st.sampled_from(
            [*((ORDERS[name], False) for name in ORDERS), (arrival, True), (interleaved, True)]
        ),
        aggregation=st.sampled_from(["none", "round"]),
        eval_every=st.integers(0, 2),
        rounds=st.integers(1, 2),
        steps=st.integers(1, 4),
    )
    def begin(
        self,
        clients: int,
        credits: int,
        order: tuple[Order, bool],
        aggregation: str,
        eval_every: int,
        rounds: int,
        steps: int,
    ) -> None:
        self.run = Run(
            clients,
            credits=credits,
            order=order[0],
            is_joint=order[1],
            client_aggregation=aggregation,
            eval_every=eval_every,
            rounds=rounds,
            steps_per_round=steps,
        )
        self.engine = self.run.engine
        self.clients = clients

    # Who can do what.

    def registered(self) -> list[Session]:
        return [session for session in self.sessions if session.member.state not in GONE]

    def unattached(self) -> list[Session]:
        return [session for session in self.registered() if not session.member.attached]

    def attached(self) -> list[Session]:
        return [session for session in self.registered() if session.member.attached]

    def training(self) -> list[Session]:
        return [session for session in self.attached() if session.start]

    def unfinished(self) -> list[Session]:
        return [session for session in self.training() if session.step < session.member.steps]

    def absent(self) -> list[Member]:
        """Who is waited for, and has no stream at present."""
        return [member for member in self.engine.roster.awaited() if not member.attached]

    def unapplied(self) -> bool:
        """Whether batches of clients that have reported their round's end are still queued."""
        awaited = self.engine.roster.awaited()
        return any(member.progress.report and member.applied < member.steps for member in awaited)

    def has_credit(self, session: Session) -> bool:
        settled = max(session.acked_of_round, session.first_step)
        return session.step - settled < self.engine.credits

    def evaluating(self) -> list[Session]:
        return [session for session in self.attached() if session.asked]

    # What clients do.

    def can_join(self) -> bool:
        return self.engine.phase is not Phase.FINISHED and len(self.registered()) < 3

    @precondition(can_join)
    @rule(cut_layer=st.integers(1, 5), attach=st.booleans())
    def join(self, cut_layer: int = 1, attach: bool = True) -> None:
        self.register(f"client {len(self.sessions)}", cut_layer, attach)

    @precondition(lambda self: self.engine.phase is not Phase.FINISHED and self.sessions)
    @rule(pick=st.integers(0, 9), cut_layer=st.integers(1, 5), attach=st.booleans())
    def come_back(self, pick: int, cut_layer: int, attach: bool) -> None:
        client_id = choose(self.sessions, pick).client_id
        for session in self.sessions:
            session.may_be_sent_away |= session.client_id == client_id
        self.register(client_id, cut_layer, attach)

    def register(self, client_id: str, cut_layer: int, attach: bool) -> None:
        self.sessions.append(Session(self.engine.register(client_id, cut_layer, 64)))
        if attach:
            self.engine.attach(client_id)

    @precondition(lambda self: self.unattached())
    @rule(pick=st.integers(0, 9))
    def attach(self, pick: int) -> None:
        self.engine.attach(choose(self.unattached(), pick).client_id)

    @precondition(lambda self: self.unfinished())
    @rule(pick=st.integers(0, 9), is_bad=st.sampled_from([False] * 4 + [True]))
    def send(self, pick: int, is_bad: bool) -> None:
        session = choose(self.unfinished(), pick)
        self.values += 1
        value = math.nan if is_bad else float(self.values)
        batch = a_batch(session.round, session.step, value)
        if self.has_credit(session):
            hand_in(self.engine, session.client_id, batch)
            session.step += 1
            session.sent.append(value)
            session.may_be_sent_away |= is_bad
        else:
            with pytest.raises(LimitExceeded):
                hand_in(self.engine, session.client_id, batch)

    @precondition(lambda self: self.training())
    @rule(
        pick=st.integers(0, 9),
        skipped=st.sampled_from([-3, -2, -1, 1, 2]),
        ahead=st.sampled_from([-1, 0, 0, 0, 0, 1]),
    )
    def send_out_of_turn(self, pick: int, skipped: int, ahead: int) -> None:
        session = choose(self.training(), pick)
        step, steps = session.step + skipped, session.member.steps
        batch = a_batch(session.round + ahead, step, value=-1.0)
        if ahead == 0 and 0 <= step < session.step:
            hand_in(self.engine, session.client_id, batch)  # a duplicate
            return
        if 0 <= batch.round < session.round:
            session.sent_late.append(batch.round)
            hand_in(self.engine, session.client_id, batch)  # acknowledged, and not applied
            return
        is_gap = ahead == 0 and 0 <= step < steps
        with pytest.raises(StepGap if is_gap else RefusedInput):
            hand_in(self.engine, session.client_id, batch)

    @precondition(lambda self: self.training())
    @rule(pick=st.integers(0, 9))
    def finish_round(self, pick: int) -> None:
        session = choose(self.training(), pick)
        assert session.start is not None
        if session.start.push_state:
            self.run.push(session.client_id)
        report = RoundDone(session.round, 0.0, 0.0)
        if session.step < session.member.steps:
            with pytest.raises(RefusedInput):
                self.engine.round_done(session.client_id, report)
        else:
            session.start, session.completed = None, session.round
            self.engine.round_done(session.client_id, report)

    @precondition(lambda self: self.evaluating())
    @rule(pick=st.integers(0, 9))
    def evaluate(self, pick: int) -> None:
        session = choose(self.evaluating(), pick)
        session.asked = None
        self.engine.evaluated(session.client_id, an_evaluation(session.round))

    @precondition(lambda self: self.registered())
    @rule(pick=st.integers(0, 9))
    def leave(self, pick: int) -> None:
        session = choose(self.registered(), pick)
        session.dismissed = True
        self.engine.detach(session.client_id, MemberState.LEFT)

    @precondition(lambda self: self.attached())
    @rule(pick=st.integers(0, 9))
    def vanish(self, pick: int) -> None:
        session = choose(self.attached(), pick)
        session.dismissed = session.lost = True
        self.engine.detach(session.client_id, MemberState.STALE)

    def missing(self) -> list[Session]:
        """Who has vanished, and is not replaced by another process yet."""
        return [
            session
            for session in self.sessions
            if session.lost and self.engine.members.get(session.client_id) is session.member
        ]

    @precondition(lambda self: self.missing())
    @rule(pick=st.integers(0, 9), keeps_its_state=st.booleans(), attach=st.booleans())
    def return_(self, pick: int, keeps_its_state: bool = True, attach: bool = True) -> None:
        lost = choose(self.missing(), pick)
        held = (lost.completed,) if keeps_its_state else ()
        if self.engine.phase is Phase.FINISHED and lost.member.state is not MemberState.STALE:
            return
        cut_layer = lost.member.cut_layer
        progress = lost.member.progress
        queued = 0 if progress.report else len(progress.queue)  # it is to be sent again
        member = self.engine.register(lost.client_id, cut_layer, 64, held)
        session = Session(member)
        if lost.member.membership == member.membership:
            session.is_heir, session.round, session.completed = True, lost.round, lost.completed
            session.sent, lost.sent, lost.acked = lost.sent[: len(lost.sent) - queued], [], 0
            session.may_be_sent_away = lost.may_be_sent_away
        self.sessions.append(session)
        if attach:
            self.engine.attach(lost.client_id)

    def waited_for(self) -> list[Session]:
        return [session for session in self.missing() if session.member.is_awaited]

    @precondition(lambda self: self.waited_for())
    @rule(pick=st.integers(0, 9))
    def release(self, pick: int) -> None:
        if len(self.engine.roster.awaited()) > 1 or self.engine.phase is Phase.EVALUATING:
            self.engine.release(choose(self.waited_for(), pick).client_id, "it is gone")

    # What the compute thread does; everything else may happen meanwhile.

    @precondition(lambda self: self.in_flight is None)
    @rule()
    def take_work(self) -> None:
        self.in_flight = work = self.engine.work()
        if isinstance(work, BoundaryWork):
            assert work.round == self.engine.round == len(self.closed)
            self.closed.append(work.round)
        if self.engine.phase is Phase.FINISHED:
            assert work is None or isinstance(work, JoinWork | LeaveWork)

    @precondition(lambda self: self.in_flight is not None and not self.is_performed)
    @rule()
    def perform_work(self) -> None:
        assert self.in_flight is not None
        self.outcome, self.is_performed = self.engine.perform(self.in_flight), True

    @precondition(lambda self: self.is_performed)
    @rule()
    def settle_work(self) -> None:
        assert self.in_flight is not None
        work, self.in_flight, self.is_performed = self.in_flight, None, False
        self.engine.settle(work, self.outcome)

    # What always holds.

    def listen(self) -> None:
        for session in self.sessions:
            session.listen()

    @invariant()
    def each_step_is_applied_exactly_once_in_order(self) -> None:
        self.listen()
        applied = [value for _, _, value in self.run.strategy.applied]
        assert -1.0 not in applied  # neither a duplicate nor anything that was refused
        assert len(applied) == len(set(applied))
        for session in self.sessions:
            own = [value for value in applied if value in session.sent]
            assert own == session.sent[: len(own)]
            if session.is_heir:
                continue  # acknowledgements were lost with its old connection
            assert session.acked <= len(own)
            if self.in_flight is None and session.member.state not in GONE:
                assert session.acked == len(own)

    @invariant()
    def queues_are_bounded_by_credits(self) -> None:
        for session in self.sessions:
            member = session.member
            assert len(member.progress.queue) == len(member.progress.arrivals)
            settled = max(member.applied, member.progress.inherited)
            assert member.progress.received - settled <= self.engine.credits
            unapplied = member.progress.received - member.applied
            assert len(member.progress.queue) <= min(self.engine.credits, unapplied)
            is_over = member.state in (MemberState.LEFT, MemberState.EVICTED)
            is_current = self.engine.members.get(member.client_id) is member
            assert not (is_over and is_current and member.progress.queue)

    @invariant()
    def rounds_advance_one_by_one_when_all_are_done(self) -> None:
        self.listen()
        phase, round_ = self.engine.phase, self.engine.round
        assert self.closed == list(range(len(self.closed)))
        is_closed = phase in (Phase.EVALUATING, Phase.FINISHED) or (
            phase is Phase.CLOSING and isinstance(self.in_flight, BoundaryWork)
        )
        assert round_ == len(self.closed) - is_closed
        if phase is not Phase.TRAINING:
            assert not self.training()
        if phase is not Phase.EVALUATING:
            assert not self.evaluating()

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        self.listen()
        phase = self.engine.phase
        self.has_started |= phase is not Phase.WAITING
        if phase is Phase.WAITING:
            assert len(self.attached()) < (1 if self.has_started else self.clients)
        elif phase is Phase.TRAINING:
            assert self.training() or self.absent() or self.unapplied()
        elif phase is Phase.EVALUATING:
            assert self.evaluating() or self.absent()
        elif phase is Phase.FINISHED:
            assert all(session.dismissed for session in self.attached())

    def teardown(self) -> None:
        """Whatever has happened, the run can be brought to its end."""
        if not hasattr(self, "engine"):
            return
        for _ in range(1000):
            if self.engine.phase is Phase.FINISHED and self.in_flight is None:
                break
            self.go_on()
            self.listen()
        for session in self.unattached():
            self.engine.attach(session.client_id)
        self.nobody_waits_for_nothing()
        assert self.engine.phase is Phase.FINISHED
        assert self.engine.model is not None
        assert list(self.engine.model.layers) == [1, 2, 3, 4, 5, 6]
        for session in self.attached():
            self.engine.detach(session.client_id, MemberState.LEFT)
        assert self.engine.is_over
        events = ({"event": kind, **fields} for kind, fields in self.run.events)
        assert audit(recorded(events), self.engine.plan).findings == []

    def go_on(self) -> None:
        """One thing that is to be done next."""
        if self.is_performed:
            return self.settle_work()
        if self.in_flight is None:
            self.take_work()
        if self.in_flight is not None:
            return self.perform_work()
        if self.engine.phase is Phase.WAITING:
            return self.join()
        for session in self.unattached():
            if session.member.is_awaited:
                return self.engine.attach(session.client_id)
        if self.waited_for():
            return self.return_(self.missing().index(self.waited_for()[0]))
        if self.evaluating():
            return self.evaluate(0)
        sending = [session for session in self.unfinished() if self.has_credit(session)]
        if sending:
            return self.send(self.unfinished().index(sending[0]), is_bad=False)
        done = [s for s in self.training() if s.step == s.member.steps]
        return self.finish_round(self.training().index(done[0]))


AnyRun.TestCase.settings = settings(
    deadline=None, max_examples=50, stateful_step_count=60, report_multiple_bugs=False
)
TestAnyRun = AnyRun.TestCase
