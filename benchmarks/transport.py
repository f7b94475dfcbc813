"""What moving an activation one way costs: our whole stack against a plain gRPC stream.

A step is 4 MiB of fp32 activations (64, 16, 32, 32) over loopback. Ours: the real client link, and
the real front, service, runner and engine around a strategy that does nothing; labels, NaN checks,
credits and accounting included. Plain: what one would write first, a bidirectional stream of 1 MiB
protobuf messages through the generated stub, whose server only joins the bytes and makes a tensor.

Fair because both are a grpc.aio server and a synchronous client of the same versions in one process
each, with four steps on their way and one answer per step, and because both are warm: a process
runs faster after it has once handled large buffers. They take turns in one run. CPU time is that of
client and server together, from the first byte sent to the last answer read.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from measure import Result
from processes import Process
from transport_ends import STEPS

_ENDS = str(Path(__file__).with_name("transport_ends.py"))


def run(repeats: int) -> list[Result]:
    """CPU milliseconds per step, and the ratio."""
    with TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        pairs = {name: _Pair(name, Path(folder), stack) for name in ("ours", "plain")}
        for pair in pairs.values():
            pair.milliseconds()
        samples: dict[str, list[float]] = {name: [] for name in pairs}
        for repeat in range(repeats):
            for name in sorted(pairs, reverse=repeat % 2 == 1):
                samples[name].append(pairs[name].milliseconds())
    ratios = [ours / plain for ours, plain in zip(samples["ours"], samples["plain"], strict=True)]
    return [
        Result("transport", "CPU per one-way step, ours / plain gRPC stream", ratios, 1.0),
        Result("transport", "CPU ms per one-way step, ours", samples["ours"]),
        Result("transport", "CPU ms per one-way step, plain gRPC stream", samples["plain"]),
    ]


class _Pair:
    """A server and its client, both running until the stack unwinds."""

    def __init__(self, name: str, folder: Path, stack: contextlib.ExitStack) -> None:
        server = stack.enter_context(
            Process(_ENDS, f"{name}-server", folder=folder / f"{name}-server")
        )
        self._server = psutil.Process(server.pid)
        self._client = stack.enter_context(
            Process(_ENDS, f"{name}-client", server.ready(), folder=folder / f"{name}-client")
        )

    def milliseconds(self) -> float:
        """CPU milliseconds of both processes per step, over STEPS steps."""
        before = self._server_seconds()
        client_seconds = float(self._client.ask("go"))
        return 1e3 * (client_seconds + self._server_seconds() - before) / STEPS

    def _server_seconds(self) -> float:
        times = self._server.cpu_times()
        return float(times.user + times.system)
