"""Signs of life on one training stream, each way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from hetero_common.agreement.heartbeats import is_lost

R = TypeVar("R")


class Heartbeat:
    """Notes when something was heard and said, and wakes the stream when a heartbeat is due.

    A connection can be dead without ever being closed: the other side is frozen or its network is
    gone. So each side says something every `seconds`. While the server does not listen, because it
    has no memory to take more, silence is its own fault.

    Args:
        wake: Set once per heartbeat.
        seconds: Between two heartbeats.
    """

    def __init__(self, wake: asyncio.Event, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = wake
        self._seconds = seconds
        self._heard = self._said = self._loop.time()
        self._listens = True
        self._timer = self._loop.call_later(seconds, self._beat)

    async def heard(self, messages: AsyncIterator[R]) -> AsyncIterator[R]:
        """The messages, each noted as a sign of life."""
        async for message in messages:
            self._listens = False
            yield message
            self._heard = self._loop.time()
            self._listens = True

    def said(self) -> None:
        """Something was sent."""
        self._said = self._loop.time()

    @property
    def is_lost(self) -> bool:
        """Whether the other side has been silent for too long."""
        silence = self._loop.time() - self._heard
        return self._listens and is_lost(silence, self._seconds)

    @property
    def is_due(self) -> bool:
        """Whether it is time to say something."""
        return self._loop.time() - self._said >= 0.9 * self._seconds

    def stop(self) -> None:
        """The stream has ended."""
        self._timer.cancel()

    def _beat(self) -> None:
        self._wake.set()
        self._timer = self._loop.call_later(self._seconds, self._beat)
