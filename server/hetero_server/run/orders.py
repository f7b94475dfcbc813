"""In which order the clients' batches reach the server model.

An order looks at the members of a round and names those whose batches are next, whether they have
arrived or not; nobody, if it is nobody's turn. It is one member, but where batches are mixed: those
of all that are named make up one step. An order keeps no state: members leave and queues fill
meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hetero_common.compute.seeding import derive_seed, permutation
from hetero_server.run.member import Member

Order = Callable[[Sequence[Member], int, int], Sequence[Member]]
"""(members of the round, seed, round) -> whose batches are next."""


def arrival(members: Sequence[Member], seed: int, round_: int) -> Sequence[Member]:
    """First come, first served."""
    return waiting(members, seed, round_)[:1]


def interleaved(members: Sequence[Member], seed: int, round_: int) -> Sequence[Member]:
    """Every client's step s, in a permutation seeded per step, before anybody's step s + 1."""
    return abreast(members, seed, round_)[:1]


def relay(members: Sequence[Member], seed: int, round_: int) -> Sequence[Member]:
    """One client's whole round after another's, in a permutation seeded per round."""
    turns = _permutation(members, seed, round_, "relay")
    return [member for member in turns if member.applied < member.steps][:1]


def waiting(members: Sequence[Member], seed: int, round_: int) -> Sequence[Member]:
    """Mixed: everybody who has a batch here."""
    here = [member for member in members if member.waiting_since is not None]
    return sorted(here, key=lambda member: member.waiting_since or 0)


def abreast(members: Sequence[Member], seed: int, round_: int) -> Sequence[Member]:
    """Mixed: everybody's step s, before anybody's step s + 1."""
    unfinished = [member for member in members if member.applied < member.steps]
    if not unfinished:
        return []
    step = min(member.applied for member in unfinished)
    turns = _permutation(members, seed, round_, step)
    return [member for member in turns if member.applied == step and member.applied < member.steps]


ORDERS: dict[str, Order] = {"arrival": arrival, "interleaved": interleaved, "relay": relay}
MIXED_ORDERS: dict[str, Order] = {"arrival": waiting, "interleaved": abreast}


def _permutation(
    members: Sequence[Member], seed: int, round_: int, turn: int | str
) -> list[Member]:
    by_id = sorted(members, key=lambda member: member.client_id)
    return [by_id[i] for i in permutation(len(by_id), derive_seed("order", seed, round_, turn))]
