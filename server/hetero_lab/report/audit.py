"""Proves, from what a server has recorded, that each step reached its model once and in order.

What counts is the history that survives: a server that is started again goes on from the end of a
round, and what it had recorded of later ones is taken back.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hetero_common.agreement.plan import Plan
from hetero_common.agreement.steps import steps_from_text, steps_to_text
from hetero_common.records.events import (
    DeviceRound,
    Finished,
    Joined,
    Left,
    LocalRound,
    Released,
    Resumed,
    RoundClosed,
)
from hetero_common.records.history import Recorded, last_run, surviving

_FOR_GOOD = ("LEFT", "EVICTED")
"""States in which a client that has left is not waited for."""


@dataclass(frozen=True)
class ClientAudit:
    """What one client gave to the server model.

    Attributes:
        rounds: Rounds that it took part in.
        steps: Steps that were applied.
        released: Rounds that went on without it; of these the first steps were applied, or none.
    """

    client: str
    rounds: int
    steps: int
    released: tuple[int, ...]


@dataclass(frozen=True)
class Audit:
    """What an audit has come to.

    Attributes:
        clients: By their ids.
        rounds: Rounds that have closed.
        resumed: How often the server was started again.
        is_finished: The last round is over.
        findings: A sentence for each thing that is wrong.
    """

    clients: list[ClientAudit]
    rounds: int
    resumed: int
    is_finished: bool
    findings: list[str]


@dataclass(frozen=True)
class _Round:
    """A client's part of a round, as far as it matters here."""

    client: str
    round: int
    steps: int
    applied: str


@dataclass
class _History:
    """What survives of a run.

    Attributes:
        records: In the order they were written.
        absences: Of each client, the rounds in which it was given up, or left.
        released: (client, round) of each one that a round went on without.
    """

    resumed: int = 0
    is_finished: bool = False
    shards: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    records: list[_Round] = field(default_factory=list)
    absences: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    released: set[tuple[str, int]] = field(default_factory=set)


def audit(recorded: Iterable[Recorded], plan: Plan) -> Audit:
    """Look through what a server, or the simulator, has recorded.

    Args:
        recorded: All of its run directory, in order. Of several runs the last one counts.
        plan: The agreement of the run.

    Raises:
        ValueError: An event contradicts what such an event says.
    """
    own = last_run(recorded)
    history = _read(surviving(own))
    findings = [
        *_order_findings(history.records),
        *_step_findings(history),
        *_plan_findings(history, plan),
        *_gap_findings(history),
    ]
    return Audit(
        [_client_audit(client, history) for client in sorted({r.client for r in history.records})],
        len({record.round for record in history.records}),
        history.resumed,
        history.is_finished,
        findings,
    )


def _read(recorded: Iterable[Recorded]) -> _History:
    history = _History()
    for each in recorded:
        match each.event:
            case Joined(client, shard_size=int() as shard_size):
                history.shards[client].add(shard_size)
            case RoundClosed(round=round_, client=client) as closed:
                if closed.steps is None or closed.applied is None:
                    raise ValueError("it tells neither steps nor which were applied")
                record = _Round(client, round_, closed.steps, closed.applied)
                history.records.append(record)
            case DeviceRound() | LocalRound():
                raise ValueError("a round tells its client, its steps and which were applied")
            case Released(client, round_):
                history.released.add((client, round_))
                history.absences[client].append(round_)
            case Left(client, state, round_) if state in _FOR_GOOD:
                history.absences[client].append(round_)
            case Resumed():
                history.resumed += 1
                history.is_finished = False
            case Finished():
                history.is_finished = True
    return history


def _order_findings(records: Sequence[_Round]) -> Iterator[str]:
    seen: set[tuple[str, int]] = set()
    newest = 0
    for record in records:
        where = f"{record.client}, round {record.round}"
        if (record.client, record.round) in seen:
            yield f"{where}: it is recorded more than once"
        elif record.round < newest:
            yield f"{where}: it is recorded after round {newest}"
        seen.add((record.client, record.round))
        newest = max(newest, record.round)


def _step_findings(history: _History) -> Iterator[str]:
    for record in history.records:
        applied = steps_from_text(record.applied)
        is_released = (record.client, record.round) in history.released
        for what in _wrong_steps(applied, record.steps, may_stop=is_released):
            yield f"{record.client}, round {record.round}: {what}"


def _wrong_steps(applied: Sequence[int], steps: int, *, may_stop: bool) -> Iterator[str]:
    counts = Counter(applied)
    end = max(applied, default=-1) + 1 if may_stop else steps
    missing = sorted(set(range(min(end, steps))) - set(counts))
    twice = sorted(step for step, count in counts.items() if count > 1)
    beyond = sorted(step for step in counts if step >= steps)
    if missing:
        yield f"{_named(missing)} did not reach the server model"
    if twice:
        yield f"{_named(twice)} reached the server model more than once"
    if beyond:
        yield f"{_named(beyond)} reached the server model in a round of {steps} steps"
    if not twice and list(applied) != sorted(applied):
        yield f"its steps reached the server model in the order {steps_to_text(applied)}"


def _plan_findings(history: _History, plan: Plan) -> Iterator[str]:
    for record in history.records:
        agreed = {plan.steps_for(size) for size in history.shards[record.client]}
        if record.steps not in agreed:
            yield (
                f"{record.client}, round {record.round}: it was to train {record.steps} steps, "
                "which is not what it has agreed to"
            )
    closed = {record.round for record in history.records}
    # A round closes without a record if all of its clients have left or were given up meanwhile.
    given_up = {round_ for rounds in history.absences.values() for round_ in rounds}
    end = plan.rounds if history.is_finished else len(closed)
    lost = sorted(set(range(end)) - closed - given_up)
    if lost:
        yield f"no client has a record of round {steps_to_text(lost)}"


def _gap_findings(history: _History) -> Iterator[str]:
    """A client that takes part does so in each round, until it is given up or leaves."""
    rounds = defaultdict(set)
    for record in history.records:
        rounds[record.client].add(record.round)
    newest = max((record.round for record in history.records), default=-1)
    # The records of the newest round may be half written while the run goes on.
    end = newest + 1 if history.is_finished else newest
    for client, own in sorted(rounds.items()):
        since = min(own)
        for round_ in range(since, end):
            if round_ in own:
                since = round_
            elif not any(since <= gone <= round_ for gone in history.absences[client]):
                yield f"{client}, round {round_}: there is no record, and nothing says it was away"


def _client_audit(client: str, history: _History) -> ClientAudit:
    own = [record for record in history.records if record.client == client]
    released = sorted(round_ for name, round_ in history.released if name == client)
    steps = sum(len(steps_from_text(record.applied)) for record in own)
    return ClientAudit(client, len(own), steps, tuple(released))


def _named(steps: Collection[int]) -> str:
    return f"step{'s' if len(steps) > 1 else ''} {steps_to_text(sorted(steps))}"
