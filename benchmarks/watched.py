"""What it costs to be watched: a real training with page and metrics, against one without.

Both are a hetero-server and a hetero-client over loopback, as in overhead.py, and take turns. The
watched one is asked for its page's status every two seconds, as one open page does, and for its
metrics every five, while it trains. CPU time is that of server and client; who asks is not counted.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import Result
from overhead import Cost, Training, network

_ROUNDS_PER_TURN = 12  # about ten seconds
_PERIODS = {"api/status": 2.0, "metrics": 5.0}  # seconds
_PATIENCE_SECONDS = 1.0


def run(repeats: int) -> list[Result]:
    """CPU time, watched over unwatched."""
    with TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        address = f"127.0.0.1:{_free_port()}"
        watched = network(Path(folder) / "watched", stack, "--http", address)
        alone = network(Path(folder) / "alone", stack, "--http", "off")
        pairs = [_pair(watched, alone, address, repeat % 2 == 1) for repeat in range(repeats)]
    ratios = [with_.cpu / without.cpu for with_, without in pairs]
    return [
        Result("watched", "CPU, with page and metrics / without", ratios, 1.02),
        Result("watched", "CPU ms per step, without", [without.cpu for _, without in pairs]),
    ]


def _pair(
    watched: Training, alone: Training, address: str, watched_first: bool
) -> tuple[Cost, Cost]:
    if not watched_first:
        without = alone.turn(_ROUNDS_PER_TURN)
    with _asking(address):
        with_ = watched.turn(_ROUNDS_PER_TURN)
    if watched_first:
        without = alone.turn(_ROUNDS_PER_TURN)
    return with_, without


@contextlib.contextmanager
def _asking(address: str) -> Iterator[None]:
    """Ask for everything in its time, as long as the block lasts."""
    over, answers = threading.Event(), [0]

    def ask(path: str, period: float) -> None:
        url = f"http://{address}/{path}"
        while not over.wait(period):
            with (
                contextlib.suppress(OSError),  # it has been paused meanwhile
                urllib.request.urlopen(url, timeout=_PATIENCE_SECONDS) as answer,
            ):
                answers[0] += bool(answer.read())

    threads = [threading.Thread(target=ask, args=each) for each in _PERIODS.items()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert answers[0], "nobody has answered: that would not be watching"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port
