"""Functions that take turns: one runs at a time, and goes on where it has waited.

Code that waits, such as a client's `Participation`, runs here as it is. Each function has a thread
of its own, but no two of them ever run at once: whoever has the turn keeps it until it passes it
on. So what happens is a function of the order of the turns alone, as with coroutines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

import torch


class _Abandoned(BaseException):
    """The others have failed: not an Exception, so that nothing takes it for one on its way out."""


class Turn:
    """One function among those that take turns.

    It can take the place of a `threading.Condition` for whoever waits within the function: to wait
    is to pass the turn on, and to be notified is to have it again.

    Args:
        function: Runs from `advance` to `advance`.
        name: Of its thread.
    """

    def __init__(self, function: Callable[[], None], name: str) -> None:
        self._function = function
        self._go, self._stop = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._is_over = self._is_abandoned = False
        # OpenMP counts threads for each thread that computes; a new one would take all cores.
        self._torch_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # Whoever gives the turns.

    def advance(self) -> bool:
        """Let the function run until it passes the turn on; False once it has returned.

        Raises:
            Exception: What the function has raised.
        """
        self._go.release()
        self._stop.acquire()
        if self._error is not None:
            raise self._error
        return not self._is_over

    def abandon(self) -> None:
        """End the function where it waits; returns when its thread has ended."""
        self._is_abandoned = True
        self._go.release()
        self._thread.join()

    # The function itself.

    def pass_on(self) -> None:
        """Let the others go on, until the turn comes back."""
        self._stop.release()
        self._go.acquire()
        if self._is_abandoned:
            raise _Abandoned

    def wait_for(self, predicate: Callable[[], object]) -> None:
        """Pass the turn on until it is true."""
        while not predicate():
            self.pass_on()

    def notify_all(self) -> None:
        """Nobody needs to be told: who waits looks again when it has the turn."""

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        """There is nothing to unlock: nobody else runs meanwhile."""

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._is_abandoned:
                torch.set_num_threads(self._torch_threads)
                self._function()
        except _Abandoned:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._is_over = True
            self._stop.release()
