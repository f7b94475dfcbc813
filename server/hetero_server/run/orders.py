"""In which order the clients' batches reach the server model.

An order looks at the members of a round and names those whose batches are next, whether they have
arrived or not; nobody, if it is nobody's turn. A strategy that takes the batches of several clients
in one step takes those of all that are named, others the first one's. An order keeps no state:
members leave and queues fill meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from hetero_common.compute.seeding import derive_seed, permutation
from hetero_common.registry import Registry
from hetero_server.learning.strategies import STRATEGIES


class InTurn(Protocol):
    """What an order sees of a member; `hetero_server.run.member.Member` has it."""

    @property
    def client_id(self) -> str:
        """Its stable name."""

    @property
    def steps(self) -> int:
        """Mini-batches that it trains per round."""

    @property
    def applied(self) -> int:
        """The number of steps of the round the server model has taken."""

    @property
    def waiting_since(self) -> int | None:
        """The place of its oldest queued batch in the order of arrival; None if none is queued."""


Turn = TypeVar("Turn", bound=InTurn)
Order = Callable[[Sequence[Any], int, int], Sequence[Any]]
"""(members of the round, as `InTurn`, seed, round) -> those whose batches are next, in order."""

ORDERS: Registry[Order] = Registry("order")


def _one_at_a_time(settings: Any) -> str | None:
    if getattr(STRATEGIES[settings.strategy], "is_joint", False):
        return (
            f"--strategy {settings.strategy} takes the batches of all clients at once, so there is "
            "no --order relay: choose arrival or interleaved"
        )
    return None


@ORDERS.add("arrival", "as they come; of a strategy for all at once, whoever is there")
def arrival(members: Sequence[Turn], seed: int, round_: int) -> Sequence[Turn]:
    """First come, first served: everybody who has a batch here."""
    here = [member for member in members if member.waiting_since is not None]
    return sorted(here, key=lambda member: member.waiting_since or 0)


@ORDERS.add("interleaved", "everybody's next batch in a seeded order, before anybody's second")
def interleaved(members: Sequence[Turn], seed: int, round_: int) -> Sequence[Turn]:
    """Every client's step s, in a permutation seeded per step, before anybody's step s + 1."""
    unfinished = [member for member in members if member.applied < member.steps]
    if not unfinished:
        return []
    step = min(member.applied for member in unfinished)
    turns = _permutation(members, seed, round_, step)
    return [member for member in turns if member.applied == step and member.applied < member.steps]


@ORDERS.add("relay", "one client after another within a round", refuses=_one_at_a_time)
def relay(members: Sequence[Turn], seed: int, round_: int) -> Sequence[Turn]:
    """One client's whole round after another's, in a permutation seeded per round."""
    turns = _permutation(members, seed, round_, "relay")
    return [member for member in turns if member.applied < member.steps][:1]


def _permutation(members: Sequence[Turn], seed: int, round_: int, turn: int | str) -> list[Turn]:
    by_id = sorted(members, key=lambda member: member.client_id)
    return [by_id[i] for i in permutation(len(by_id), derive_seed("order", seed, round_, turn))]
