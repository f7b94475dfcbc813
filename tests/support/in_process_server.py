"""A server in this process, and the certificates and tokens to call it with."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hetero_client.link.calls import Calls
from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.errors import HeteroError
from hetero_common.version import PROTOCOL_VERSION
from hetero_common.wire import messages, rpc
from hetero_common.wire.frames import frames
from hetero_server.auth.certs import Authority
from hetero_server.compute_thread import ComputeThread
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.strategies import Surroundings
from hetero_server.learning.strategies.sequential import SequentialStrategy
from hetero_server.net.listener import Listener
from hetero_server.net.service import HeteroSplitService
from hetero_server.run.engine import Engine
from hetero_server.run.orders import arrival
from hetero_server.runner import Runner
from hetero_server.settings import LimitSettings
from hetero_splitee.v1 import service_pb2 as pb

PLAN = Plan(model="tinycnn", width=4, image_size=8, rounds=2, steps_per_round=2, batch_size=4)
HOSTS = ("localhost", "127.0.0.1")
SECONDS = 60.0
"""Guard against a call that is never answered."""
TOKENS = {"a": "token-of-a", "b": "token-of-b"}

T = TypeVar("T")


@dataclass(frozen=True)
class Pki:
    """Directories for --certs, of two authorities.

    Attributes:
        folder: Below it, one directory for each name.
    """

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Pki:
        ours, theirs = Authority.new(), Authority.new()
        ours.issue(folder / "server", "server", "server", 9, HOSTS)
        ours.issue(folder / "expired server", "server", "server", -1, HOSTS)
        ours.issue(folder / "elsewhere", "server", "server", 9, ("other.example",))
        for client in "ab":
            ours.issue(folder / client, "client", client, 9)
        ours.issue(folder / "expired", "client", "a", -1)
        theirs.issue(folder / "their server", "server", "server", 9, HOSTS)
        theirs.issue(folder / "theirs", "client", "a", 9)
        # Knows the server, and shows a certificate that the server does not know.
        theirs.issue(folder / "stranger", "client", "a", 9)
        for name in ("stranger", "nobody"):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "ca.pem").write_bytes((folder / "server" / "ca.pem").read_bytes())
        return cls(folder)

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


def write_tokens(file: Path) -> Path:
    lines = [f"{who} {hashlib.sha256(token.encode()).hexdigest()}" for who, token in TOKENS.items()]
    file.write_text("\n".join(["# who, and of what", "", *lines]) + "\n")
    return file


class InProcessServer:
    """A server in this process, its engine, and calls of its clients."""

    def __init__(self, engine: Engine, address: str) -> None:
        self.engine, self.address = engine, address

    def calls(self, certs: Path | None = None, token: str | None = None) -> Calls:
        return Calls(self.address, certs, token)

    def register(self, calls: Calls, client_id: str) -> Any:
        return calls.unary("Register", self.registration(client_id), SECONDS)

    def registration(self, client_id: str) -> pb.RegisterRequest:
        return pb.RegisterRequest(
            protocol_version=PROTOCOL_VERSION,
            client_id=client_id,
            cut_layer=2,
            fingerprint=self.engine.initial.fingerprint,
            shard_size=64,
            wire_dtypes=messages.wire_dtypes(),
        )

    def requests(self, name: str) -> Any:
        """What client `a` may well say in this call."""
        pushed = pb.PushStateRequest(header=pb.StateHeader(bytes=4))
        return {
            "GetStatus": pb.GetStatusRequest(),
            "Register": self.registration("a"),
            "Train": iter(()),
            "PushState": frames(pushed, memoryview(b"data")),
            "PullState": pb.PullStateRequest(),
            "Predict": iter([pb.PredictRequest(open=self.predict_open())]),
            "Leave": pb.LeaveRequest(),
        }[name]

    def predict_open(self) -> pb.PredictOpen:
        return pb.PredictOpen(cut_layer=2, fingerprint=self.engine.initial.fingerprint)

    def outcome(self, calls: Calls, name: str) -> type[HeteroError] | None:
        """How a call ends, or None where it was answered."""
        try:
            if rpc.SERVICE.methods_by_name[name].server_streaming:
                with calls.translated():
                    answers = calls.stream(name, self.requests(name), timeout=SECONDS)
                    next(answers, None)
                    answers.cancel()
            else:
                calls.unary(name, self.requests(name), SECONDS)
        except HeteroError as error:
            return type(error)
        return None


def a_service(
    limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
) -> tuple[HeteroSplitService, Runner]:
    """A run that waits for its first client."""
    initial = InitialModel(PLAN)
    engine = Engine(
        PLAN,
        initial,
        SequentialStrategy(Surroundings(PLAN, Compute(), initial.fresh, initial.fresh_exits, None)),
        arrival,
        clients=1,
    )
    runner = Runner(engine, ComputeThread())
    runner.monitor.watch(engine, "run", "sequential")
    service = HeteroSplitService(
        engine, "run", runner.compute, runner.monitor, runner.changed, limits=limits
    )
    return service, runner


@contextlib.asynccontextmanager
async def _serving(
    limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
    **options: Any,
) -> AsyncIterator[InProcessServer]:
    service, runner = a_service(limits)
    front = await Listener.open("127.0.0.1:0", limits=limits, **options)
    front.serve(service)
    try:
        yield InProcessServer(runner.engine, f"127.0.0.1:{front.port}")
    finally:
        await front.close()
        runner.compute.close()


def with_server(body: Callable[[InProcessServer], T], **options: Any) -> T:
    """Run `body` in a thread beside a server that was opened with these options."""

    async def main() -> T:
        async with _serving(**options) as server:
            return await asyncio.to_thread(body, server)

    return asyncio.run(main())


@contextlib.contextmanager
def closing(*all_calls: Calls) -> Iterator[None]:
    try:
        yield
    finally:
        for calls in all_calls:
            calls.close()
