"""What there is to compute beside training steps, in its order."""

from __future__ import annotations

from collections import deque

from hetero_server.run.work import ForgetWork, Work


class Agenda:
    """A queue of work; forgetting an outlier goes before everything else.

    BatchNorm's statistics are put back to before the last step, so nothing may come in between.
    """

    def __init__(self) -> None:
        self._forget: ForgetWork | None = None
        self._queue: deque[Work] = deque()

    def add(self, work: Work) -> None:
        """Compute this after all that was added before."""
        self._queue.append(work)

    def forget(self, client_id: str) -> None:
        """Let BatchNorm's statistics forget the last step, which was this client's."""
        self._forget = ForgetWork(client_id)

    def next(self) -> Work | None:
        """Take the next piece of work off; None if there is none."""
        if self._forget is not None:
            work, self._forget = self._forget, None
            return work
        return self._queue.popleft() if self._queue else None
