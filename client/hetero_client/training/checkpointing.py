"""What a client can go back to: the newest state in memory, and on its disk one every so often."""

from __future__ import annotations

import time
from collections.abc import Callable

from hetero_common.records.checkpoints import Checkpoint, CheckpointStore

_OWN = 2
"""Its own choices that are left: of the newest, the server may not have heard yet."""


class Keeping:
    """States at the ends of rounds.

    A round may be as short as one step, and a write to the disk longer than that.

    Args:
        store: What outlives the process.
        seconds: Between states that are written without being asked for, at least.
        clock: Seconds from any origin.
    """

    def __init__(
        self,
        store: CheckpointStore,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._clock = clock
        self._written = clock()
        self._newest: Checkpoint | None = None
        self._own: list[int] = []

    def keep(self, checkpoint: Checkpoint, *, asked: bool) -> None:
        """Take a state; it is written if it is asked for, or if the last is old enough.

        Raises:
            OSError: It cannot be written; it is held in memory all the same.
        """
        self._newest = checkpoint
        # The server may have had it go back: what was kept of this round on is replaced, or stale.
        self._own = [round_ for round_ in self._own if round_ < checkpoint.round]
        now = self._clock()
        if not asked and now - self._written < self._seconds:
            return
        self._written = now
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
