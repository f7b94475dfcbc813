"""Who is in a run: registrations, returns, departures, and who of them is waited for."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Sequence

from hetero_common.agreement.control import Evaluate, StartRound
from hetero_common.agreement.plan import Plan
from hetero_common.errors import HeteroError, RefusedInput, Superseded
from hetero_common.records.events import Joined, Left, Observer, Released, Returned
from hetero_server.learning.aggregation import Contribution
from hetero_server.learning.initial_model import InitialModel
from hetero_server.run.checks import require_class_counts
from hetero_server.run.member import GONE, GONE_FOR_GOOD, Identity, Member, MemberState
from hetero_server.run.work import JoinWork, LeaveWork

log = logging.getLogger(__name__)


class Roster:
    """The clients of a run by their ids.

    Args:
        plan: The agreement of the run.
        initial: Its model.
        errand: Called with what the strategy has to do about a member.
        observe: Told who came and went.
    """

    def __init__(
        self,
        plan: Plan,
        initial: InitialModel,
        errand: Callable[[JoinWork | LeaveWork], None],
        observe: Observer,
    ) -> None:
        self.members: dict[str, Member] = {}
        self._plan = plan
        self._initial = initial
        self._errand = errand
        self._observe = observe
        self._memberships = itertools.count()

    def participants(self) -> list[Member]:
        """Whom the current round counts on, by id."""
        members = (member for member in self.members.values() if member.in_round)
        return sorted(members, key=lambda member: member.client_id)

    def awaited(self) -> list[Member]:
        """Whom the current round or evaluation waits for, done or not."""
        return [member for member in self.members.values() if member.is_awaited]

    def attached(self) -> list[Member]:
        """Return the members whose stream is open."""
        return [member for member in self.members.values() if member.attached]

    def gather(self) -> list[Member]:
        """Return who is counted on in a new round: who is there, and who may come back."""
        for member in self.members.values():
            member.in_round = member.attached or member.is_awaited
            if member.in_round:
                self.house(member)
            elif member.state is MemberState.STALE:
                self.unhouse(member)
        return [member for member in self.members.values() if member.in_round]

    def register(
        self,
        client_id: str,
        cut_layer: int,
        shard_size: int,
        held: Collection[int],
        round_: int,
        class_counts: Sequence[int] = (),
    ) -> Member:
        """Let a client in, as itself if it can go on from where it was, else as a new one.

        Raises:
            CutLayerOutOfRange: The model has no such cut layer.
            RefusedInput: The shard cannot fill a batch, or its classes are not told as they must.
        """
        self._initial.require_cut(cut_layer)
        if shard_size < 2:
            raise RefusedInput(f"a shard of {shard_size} images is too small: 2 are the least")
        counts = require_class_counts(class_counts, shard_size, self._plan)
        steps = self._plan.steps_for(shard_size)
        identity = Identity(client_id, cut_layer, shard_size, steps, counts)
        known = self.members.get(client_id)
        if known is None:
            return self._join(identity, round_)
        if not _can_go_on(known, identity, held, round_):
            self.dismiss(known, MemberState.EVICTED, Superseded(client_id), round_)
            return self._join(identity, round_)
        if known.attached:
            known.outbox.append(Superseded(client_id))
            known.attached = False
        known.enter(MemberState.EVICTED, "another process goes on")
        heir = self.members[client_id] = known.succeed()
        heir.base = known.completed if known.completed in held else None
        first = heir.progress.received if heir.is_awaited else None
        self._observe(Returned(client_id, round_, heir.base, first))
        return heir

    def _join(self, identity: Identity, round_: int) -> Member:
        member = Member(identity, next(self._memberships))
        self.members[identity.client_id] = member
        joined = Joined(identity.client_id, identity.cut_layer, identity.shard_size, round_)
        self._observe(joined)
        return member

    def take_back(self, member: Member, evaluating: bool, round_: int) -> None:
        """Tell a member that is back in its round what it is still to do.

        Args:
            member: Awaited by the round.
            evaluating: The round has closed and is being evaluated.
            round_: The current round.
        """
        averaged = self._plan.averages_clients
        missed = missed_directive(member, evaluating, averaged)
        state = MemberState.SYNCING
        if isinstance(missed, StartRound):
            state, member.progress.start = MemberState.TRAINING, missed
        elif averaged:
            member.needs_pull = missed is None  # else it pulls for the evaluation
        member.enter(state, f"it is back in round {round_}")
        if missed is not None:
            member.outbox.append(missed)

    def lose(self, member: Member, round_: int) -> None:
        """Its connection is gone; it may come back."""
        if member.state in GONE:
            return
        member.enter(MemberState.STALE, MemberState.STALE.value)
        member.attached = False
        if not member.in_round:
            self.unhouse(member)
        self._forget_stranger(member)
        self._tell_departure(member, round_)

    def dismiss(
        self, member: Member, state: MemberState, error: HeteroError | None, round_: int
    ) -> None:
        """It is gone for good, and is told the error if there is one."""
        if member.state in GONE_FOR_GOOD:
            return
        member.enter(state, str(error) if error else state.value)
        member.attached = member.in_round = False
        member.progress.drop_queue()
        if error is not None:
            member.outbox.append(error)
        self.unhouse(member)
        self._forget_stranger(member)
        self._tell_departure(member, round_, error)

    def restore(self, members: Iterable[Member]) -> None:
        """Count on the members that a checkpoint has kept."""
        for member in members:
            self.members[member.client_id] = member
            self._memberships = itertools.count(member.membership + 1)

    def _tell_departure(
        self, member: Member, round_: int, error: HeteroError | None = None
    ) -> None:
        reason = None if error is None else type(error).__name__
        self._observe(Left(member.client_id, member.state.name, round_, reason))

    def _forget_stranger(self, member: Member) -> None:
        """Forget a member that was never told to train: it has left nothing behind."""
        if member.completed is None and self.members.get(member.client_id) is member:
            del self.members[member.client_id]

    def release(self, member: Member, why: str, round_: int) -> None:
        """The round goes on without it; what it has sent in time counts."""
        member.released = True
        member.progress.drop_queue()
        log.warning("round %d goes on without client %s: %s", round_, member.client_id, why)
        self._observe(Released(member.client_id, round_, why))

    def house(self, member: Member) -> None:
        """See to it that the strategy holds server layers for a member."""
        if not member.housed:
            member.housed = True
            self._errand(JoinWork(member.client_id, member.cut_layer))

    def unhouse(self, member: Member) -> None:
        """A member's server layers can go."""
        if member.housed:
            member.housed = False
            self._errand(LeaveWork(member.client_id))


def _can_go_on(known: Member, identity: Identity, held: Collection[int], round_: int) -> bool:
    if known.state in GONE_FOR_GOOD or known.identity != identity:
        return False
    # Before the first step of its first round there is nothing yet that it could have lost.
    is_first = known.is_awaited and known.first_round == round_
    untouched = is_first and known.progress.received == 0
    return known.completed in held or untouched


def missed_directive(
    member: Member, evaluating: bool, averaged: bool
) -> StartRound | Evaluate | None:
    """Return what a member that is back in its round is still to do.

    Args:
        member: Awaited by the current round.
        evaluating: The round has closed and is being evaluated.
        averaged: Clients pull averaged weights each round; it may have lost what it has pulled.
    """
    progress = member.progress
    if evaluating:
        asked = progress.asked
        if asked is None or progress.evaluation is not None:
            return None
        return dataclasses.replace(asked, pull_state=asked.pull_state or averaged)
    start = progress.start
    if start is None or progress.report is not None:
        return None
    pull = start.pull_state or averaged
    return dataclasses.replace(start, pull_state=pull, first_step=progress.received)


def contributions(participants: Sequence[Member], uniform: bool) -> list[Contribution]:
    """Return what each gives to the averages: weighted by its applied steps, or all alike."""
    return [
        Contribution(
            member.client_id,
            member.cut_layer,
            1.0 if uniform else float(member.pending_samples),
            member.progress.pushed,
            member.applied,
        )
        for member in participants
    ]
