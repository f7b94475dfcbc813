"""A TCP proxy between real processes that harms what passes through it, when a test says so.

    with Proxy(server.address) as proxy:
        ...                             # a client connects to proxy.address
        proxy.cut_after(UP, 10_000)     # in the middle of something
        proxy.wait_for_cuts(1)

It takes new connections after a cut. Harm is done to bytes that come after it was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

_CHUNK = 16_384


class Way(enum.Enum):
    """Which way bytes go."""

    UP = "from the client to the server"
    DOWN = "from the server to the client"


UP, DOWN = Way


@dataclass(eq=False)
class _Connection:
    """Both halves of what a client has opened.

    Attributes:
        ends: Where bytes of each way are written to.
        dead: Ways in which bytes were swallowed: nothing that comes later could be understood.
    """

    ends: dict[Way, asyncio.StreamWriter]
    dead: set[Way] = field(default_factory=set)

    def close(self) -> None:
        self.dead.update(Way)
        for end in self.ends.values():
            end.close()


@dataclass
class _Harm:
    """What is done at present; touched by the proxy's thread alone.

    Attributes:
        delay: Seconds that every byte takes.
        rate: Bytes per second of each connection and way; 0 for no limit.
        silent: Ways in which everything is swallowed, while nothing is closed.
        cuts: After how many bytes, from the last cut on, connections are cut.
        marks: What has to pass before bytes towards a cut are counted, if anything.
    """

    delay: float = 0.0
    rate: float = 0.0
    silent: frozenset[Way] = frozenset()
    cuts: dict[Way, deque[int]] = field(default_factory=lambda: {UP: deque(), DOWN: deque()})
    mark: bytes = b""


class Proxy:
    """Listens on a port of its own in front of one server.

    Args:
        target: HOST:PORT of the server, which may come and go.

    Attributes:
        address: HOST:PORT of the proxy, once entered.
        passed: Bytes that have been passed on, each way.
        cuts: How often connections were cut after a count of bytes.
    """

    def __init__(self, target: str) -> None:
        self._target = target.rpartition(":")
        self.address = ""
        self.passed = {UP: 0, DOWN: 0}
        self.cuts = 0
        self._harm = _Harm()
        self._seen = b""  # the last bytes that a mark could begin in
        self._connections: set[_Connection] = set()
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")

    # What a test does.

    def delay(self, seconds: float) -> None:
        """Let every byte arrive so much later."""
        self._do(lambda: setattr(self._harm, "delay", seconds))

    def throttle(self, bytes_per_second: float) -> None:
        """Let no more bytes through each way of a connection."""
        self._do(lambda: setattr(self._harm, "rate", bytes_per_second))

    def go_silent(self, *ways: Way) -> None:
        """Swallow everything and close nothing: half-open, or as if the network were gone."""
        self._do(lambda: setattr(self._harm, "silent", frozenset(ways)))

    def cut(self) -> None:
        """Close all connections."""
        self._do(self._close_all)

    def cut_after(self, way: Way, *counts: int, mark: bytes = b"") -> None:
        """Close all connections after the first `count` bytes, again after the next, and so on.

        Args:
            way: Whose bytes are counted.
            counts: Bytes up to the first cut, and from each cut to the next one.
            mark: Count from where the client has sent this.
        """

        def arm() -> None:
            self._harm.cuts[way].extend(counts)
            self._harm.mark, self._seen = mark, b""

        self._do(arm)

    def heal(self) -> None:
        """Do no more harm. A connection that has lost bytes stays dead, others go on."""
        self._do(lambda: setattr(self, "_harm", _Harm()))

    def wait_for_cuts(self, count: int) -> None:
        """Wait until so many cuts were made; pytest's timeout is the limit."""
        with self._changed:
            self._changed.wait_for(lambda: self.cuts >= count)

    def _do(self, action: Callable[[], None]) -> None:
        """In the proxy's thread, before anything else that passes from now on."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(action)
        self._loop.call_soon_threadsafe(done.set)
        done.wait()

    def __enter__(self) -> Proxy:
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(self._listen(), self._loop)
        self._server = started.result()
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname())
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # What happens in its thread.

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _end(self) -> None:
        self._server.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            self._close_all()
            await asyncio.wait(tasks, timeout=0.1)  # one that has just come is closed then

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target
        try:
            answers, server = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()  # the server is not there
            return
        connection = _Connection({UP: server, DOWN: writer})
        self._connections.add(connection)
        try:
            await asyncio.gather(
                self._pass(reader, connection, UP), self._pass(answers, connection, DOWN)
            )
        finally:
            connection.close()
            self._connections.discard(connection)

    async def _pass(self, source: asyncio.StreamReader, connection: _Connection, way: Way) -> None:
        """Read and deliver side by side, so that a delay costs no throughput."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        deliver = asyncio.create_task(self._deliver(waiting, connection, way))
        data = b"?"
        while data:
            data = b""
            with contextlib.suppress(OSError):
                data = await source.read(_CHUNK)
            await waiting.put((self._loop.time() + self._harm.delay, data))
        await deliver

    async def _deliver(
        self, waiting: asyncio.Queue[tuple[float, bytes]], connection: _Connection, way: Way
    ) -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            if way in self._harm.silent:
                connection.dead.add(way)
            if not data:
                if not connection.dead:
                    connection.close()
                return
            if way not in connection.dead:
                await self._write(data, connection, way)

    async def _write(self, data: bytes, connection: _Connection, way: Way) -> None:
        rest, is_cut = self._before_cut(data, way)
        self.passed[way] += len(rest)  # before: who has received them may look
        with contextlib.suppress(OSError):
            connection.ends[way].write(rest)
            await connection.ends[way].drain()
        if is_cut:
            self._close_all()
            with self._changed:
                self.cuts += 1
                self._changed.notify_all()
        if self._harm.rate:
            await asyncio.sleep(len(rest) / self._harm.rate)

    def _before_cut(self, data: bytes, way: Way) -> tuple[bytes, bool]:
        """What is passed on of the data, and whether connections are cut behind it."""
        start, cuts = 0, self._harm.cuts[way]
        if self._harm.mark:
            start = self._behind_mark(data) if way is UP else len(data)
        if not cuts or start == len(data):
            return data, False
        left = cuts.popleft()
        if start + left > len(data):
            cuts.appendleft(left - (len(data) - start))
            return data, False
        return data[: start + left], True

    def _behind_mark(self, data: bytes) -> int:
        """Where counting begins: behind the mark, or at the end where that has not come."""
        mark, before = self._harm.mark, len(self._seen)
        at = (self._seen + data).find(mark)
        if at < 0:
            self._seen = (self._seen + data)[1 - len(mark) :]
            return len(data)
        self._harm.mark = b""
        return at + len(mark) - before

    def _close_all(self) -> None:
        for connection in self._connections:
            connection.close()
