"""In which order the clients' batches reach the server model.

An order looks at the members of a round and names the one whose batch is next, whether that has
arrived or not; None if it is nobody's turn. It keeps no state: members leave and queues fill
meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hetero_common.sampling import derive_seed, permutation
from hetero_server.members import Member

Order = Callable[[Sequence[Member], int, int], Member | None]
"""(members of the round, seed, round) -> whose batch is next."""


def arrival(members: Sequence[Member], seed: int, round_: int) -> Member | None:
    """First come, first served."""
    waiting = [member for member in members if member.queue]
    return min(waiting, key=lambda member: member.arrivals[0], default=None)


def interleaved(members: Sequence[Member], seed: int, round_: int) -> Member | None:
    """Every client's step s, in a permutation seeded per step, before anybody's step s + 1."""
    unfinished = [member for member in members if member.applied < member.steps]
    if not unfinished:
        return None
    step = min(member.applied for member in unfinished)
    turns = _permutation(members, seed, round_, step)
    return next(m for m in turns if m.applied == step and m.applied < m.steps)


def relay(members: Sequence[Member], seed: int, round_: int) -> Member | None:
    """One client's whole round after another's, in a permutation seeded per round."""
    turns = _permutation(members, seed, round_, "relay")
    return next((member for member in turns if member.applied < member.steps), None)


ORDERS: dict[str, Order] = {"arrival": arrival, "interleaved": interleaved, "relay": relay}


def _permutation(
    members: Sequence[Member], seed: int, round_: int, turn: int | str
) -> list[Member]:
    by_id = sorted(members, key=lambda member: member.client_id)
    return [by_id[i] for i in permutation(len(by_id), derive_seed("order", seed, round_, turn))]
