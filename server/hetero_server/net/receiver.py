"""Bulk bytes that clients send: how long they may take, and how much memory."""

from __future__ import annotations

import asyncio
import contextlib
import math
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from hetero_common.errors import LimitExceeded, RefusedInput
from hetero_common.wire.frames import Assembler, Frame

F = TypeVar("F", bound=Frame[Any])


class Receiver:
    """Collects what was announced, within limits that all clients share.

    Memory counts as taken until nothing refers to the bytes any more: while they arrive, wait for
    their turn and are computed. Where it is used up, nothing more is read, so that HTTP/2 makes the
    senders wait.

    Args:
        memory: Bytes that may be taken at a time.
        patience: Seconds without a frame after which a stream that is read by `in_time` ends.
    """

    def __init__(self, memory: float = math.inf, patience: float = math.inf) -> None:
        self._memory = memory
        self._patience = patience
        self._taken = 0
        self._freed = asyncio.Event()

    @property
    def taken(self) -> int:
        """Bytes that are taken now."""
        return self._taken

    async def in_time(self, frames: AsyncIterator[F]) -> AsyncIterator[F]:
        """The frames of a stream.

        Raises:
            LimitExceeded: None came for too long.
        """
        patience = None if math.isinf(self._patience) else self._patience
        while True:
            try:
                frame = await asyncio.wait_for(anext(frames, None), patience)
            except asyncio.TimeoutError:
                raise LimitExceeded(
                    f"nothing came on this stream for {self._patience:g} s, the server's --patience"
                ) from None
            if frame is None:
                return
            yield frame

    async def collect(
        self,
        size: int,
        first: Frame[Any],
        following: AsyncIterator[Frame[Any]],
        what: str,
        *,
        may_wait: Callable[[], bool] = lambda: True,
    ) -> memoryview | None:
        """The bulk bytes of an announcement, which come with it and in the frames behind it.

        Args:
            size: How many are to come; checked before.
            first: The announcement.
            following: The frames behind it.
            what: What they are, for a sentence.
            may_wait: Asked while memory is used up; who is waited for cannot wait itself.

        Returns:
            None if the stream has ended too early.

        Raises:
            RefusedInput: Something else came, or more.
        """
        while self._taken and self._taken + size > self._memory and may_wait():
            self._freed.clear()
            await self._freed.wait()
        assembler = self._take(size)
        if first.chunk is not None:
            assembler.feed(first.chunk)
        while not assembler.is_whole:
            frame = await anext(following, None)
            if frame is None:
                return None
            if frame.message is not None or frame.chunk is None:
                raise RefusedInput(f"{what} is not complete")
            assembler.feed(frame.chunk)
        return assembler.view()

    def _take(self, size: int) -> Assembler:
        assembler = Assembler(size)
        self._taken += size
        loop = asyncio.get_running_loop()

        def give_back() -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed by then
                loop.call_soon_threadsafe(self._give_back, size)

        # The view is passed on, from queue to tensor; the array behind it lives as long.
        weakref.finalize(assembler.view().obj, give_back).atexit = False
        return assembler

    def _give_back(self, size: int) -> None:
        self._taken -= size
        self._freed.set()
