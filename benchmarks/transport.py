"""What moving an activation one way costs: our whole stack against a plain gRPC stream.

A step is 4 MiB of fp32 activations (64, 16, 32, 32) over loopback. Ours: the real client link, and
the real front, service, runner and engine around a strategy that does nothing; labels, NaN checks,
credits and accounting included. Plain: what one would write first, a bidirectional stream of 1 MiB
protobuf messages through the generated stub, whose server only joins the bytes and makes a tensor.

Fair because both are a grpc.aio server and a synchronous client of the same versions in one process
each, with four steps on their way and one answer per step, and because both are warm: a process
runs faster after it has once handled large buffers. They take short turns, in new processes for
each sample. CPU time is that of client and server together, from the first byte sent to the last
answer read.
"""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import Result
from processes import Process
from transport_ends import STEPS

_TURNS = 8  # of each system in a repeat
_ENDS = str(Path(__file__).with_name("transport_ends.py"))


def run(repeats: int) -> list[Result]:
    """CPU milliseconds per step, and the ratio."""
    samples = [_sample() for _ in range(2 * repeats)]
    ratios = [ours / plain for ours, plain in samples]
    return [
        Result("transport", "CPU per one-way step, ours / plain gRPC", ratios, 1.0),
        Result("transport", "CPU ms per one-way step, ours", [o for o, _ in samples]),
        Result("transport", "CPU ms per one-way step, plain gRPC", [p for _, p in samples]),
    ]


def _sample() -> tuple[float, float]:
    """Milliseconds of ours and plain, in new processes.

    How a process' allocator has settled makes up to a factor of two for as long as it lives.
    """
    with TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ours = _Pair("ours", Path(folder), stack)
        plain = _Pair("plain", Path(folder), stack)
        _alternate(ours, plain)  # warms both up
        return _alternate(ours, plain)


class _Pair:
    """A server and its client, both running until the stack unwinds."""

    def __init__(self, name: str, folder: Path, stack: contextlib.ExitStack) -> None:
        def start(end: str, *address: str) -> Process:
            return stack.enter_context(Process(_ENDS, end, *address, folder=folder / end))

        self._server = start(f"{name}-server")
        self._client = start(f"{name}-client", self._server.ready())

    def milliseconds(self) -> float:
        """CPU milliseconds of both processes per step, over STEPS steps."""
        before = self._cpu_seconds()
        self._client.ask("go")
        return 1e3 * (self._cpu_seconds() - before) / STEPS

    def _cpu_seconds(self) -> float:
        return self._server.cpu_seconds() + self._client.cpu_seconds()


def _alternate(ours: _Pair, plain: _Pair) -> tuple[float, float]:
    """Means over short turns: ours, plain, plain, ours, and so on."""
    taken: dict[_Pair, list[float]] = {ours: [], plain: []}
    for turn in range(_TURNS):
        for pair in (ours, plain) if turn % 2 == 0 else (plain, ours):
            taken[pair].append(pair.milliseconds())
    return statistics.mean(taken[ours]), statistics.mean(taken[plain])
