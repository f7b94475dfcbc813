"""What a client can go back to: the newest state in memory, and on its disk one every so often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from hetero_common.records.cadence import Cadence
from hetero_common.records.checkpoints import Checkpoint, CheckpointStore

_OWN = 2
"""Its own choices that are left: of the newest, the server may not have heard yet."""


class States(Protocol):
    """A client's states at the ends of rounds; `Keeping` holds them for a process of its own."""

    def keep(self, round_: int, state: Callable[[], Mapping[str, Tensor]], *, asked: bool) -> None:
        """Take the state at the end of a round, which is now.

        Args:
            round_: The round.
            state: Copies the state; called if it is wanted.
            asked: It has to be found again after a restart.

        Raises:
            OSError: It cannot be written.
        """

    def flush(self) -> None:
        """Write what is not yet.

        Raises:
            OSError: It cannot be written.
        """

    def rounds(self) -> list[int]:
        """Rounds whose end there is to go back to, ascending."""

    def load(self, round_: int) -> Checkpoint | None:
        """The state at the end of a round, for the caller to change; None if it is not there."""

    def prune(self, keep_from: int) -> None:
        """Forget the ends of all rounds before `keep_from`."""


class Keeping:
    """States at the ends of rounds.

    A round may be as short as one step, and a write to the disk longer than that.

    Args:
        store: What outlives the process.
        cadence: Seconds between states that are written without being asked for, at least.
    """

    def __init__(
        self,
        store: CheckpointStore,
        cadence: Cadence,
    ) -> None:
        self._store = store
        self._cadence = cadence
        self._newest: Checkpoint | None = None
        self._own: list[int] = []

    def keep(self, round_: int, state: Callable[[], Mapping[str, Tensor]], *, asked: bool) -> None:
        """Take a state; it is written if it is asked for, or if the last is old enough.

        Raises:
            OSError: It cannot be written; it is held in memory all the same.
        """
        checkpoint = self._newest = Checkpoint(round_, state())
        # The server may have had it go back: what was kept of this round on is replaced, or stale.
        self._own = [own for own in self._own if own < round_]
        if not asked and not self._cadence.is_due:
            return
        self._cadence.begin()
        self._store.write(checkpoint)
        if not asked:
            self._own.append(checkpoint.round)
            if len(self._own) > _OWN:
                self._store.remove(self._own.pop(0))

    def flush(self) -> None:
        """Write the newest state, if it is not yet.

        Raises:
            OSError: It cannot be written.
        """
        if self._newest is not None and self._newest.round not in self._store.rounds():
            self._store.write(self._newest)

    def rounds(self) -> list[int]:
        """Rounds whose end there is to go back to, ascending."""
        held = set(self._store.rounds())
        if self._newest is not None:
            held.add(self._newest.round)
        return sorted(held)

    def load(self, round_: int) -> Checkpoint | None:
        """The state at the end of a round, for the caller to change; None if it is not there."""
        newest = self._newest
        if newest is None or newest.round != round_:
            return self._store.load(round_)
        tensors = {name: tensor.clone() for name, tensor in newest.tensors.items()}
        return Checkpoint(round_, tensors, newest.record)

    def prune(self, keep_from: int) -> None:
        """Forget the ends of all rounds before `keep_from`."""
        self._store.prune(keep_from)
