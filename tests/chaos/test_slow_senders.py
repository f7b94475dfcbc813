"""Sixty-four clients that send a byte in each second, and one that would like to train."""

from __future__ import annotations

import itertools
import queue
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from hetero_common.records.history import read_records
from hetero_common.records.rundir import MODEL_FILE
from hetero_common.wire import rpc
from hetero_common.wire.frames import Frame, serialize
from hetero_splitee.v1 import service_pb2 as pb
from support.chaos_fleet import bits
from support.commands import SMALL
from support.hostile_load import Attacker
from support.intruder import BATCH, CUT, DATA, GOOD, STEPS, batch

if TYPE_CHECKING:
    from chaos.conftest import Finished, Launch, Process
    from conftest import Simulate

SLOW = 64
SECONDS = 1.0
"""Between two bytes."""
AGREED = (
    *(*SMALL, "--batch-size", str(BATCH), "--steps-per-round", str(STEPS)),
    *("--wire", "fp32"),  # slow members write their batches by hand
)
pytestmark = pytest.mark.slow


class SlowSender:
    """Says how it begins, and then a byte of what follows each time."""

    def __init__(self, attacker: Attacker, method: str, session: str, begins: bytes) -> None:
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._outgoing.put(begins)
        call: Any = attacker.channel.stream_stream(f"/{rpc.SERVICE.full_name}/{method}")
        metadata = ((rpc.SESSION_KEY, session),)
        self._stream = call(iter(self._outgoing.get, None), metadata=metadata)

    def sends_a_byte(self) -> None:
        self._outgoing.put(serialize(Frame(None, memoryview(b"x"))))

    def stops(self) -> None:
        self._outgoing.put(None)
        self._stream.cancel()


class SlowMember(SlowSender):
    """Waits for its first round, and then begins a batch that it never ends."""

    def __init__(self, attacker: Attacker, session: str) -> None:
        beat = pb.TrainRequest(heartbeat=pb.Heartbeat())
        super().__init__(attacker, "Train", session, beat.SerializeToString())
        self._in_round = threading.Event()
        threading.Thread(target=self._begin, name="slow member", daemon=True).start()

    def sends_a_byte(self) -> None:
        if self._in_round.is_set():
            super().sends_a_byte()

    def _begin(self) -> None:
        with suppress(grpc.RpcError):
            for answer in map(pb.TrainResponse.FromString, self._stream):
                if answer.HasField("start_round") and not self._in_round.is_set():
                    self._outgoing.put(serialize(Frame(batch(), GOOD[:1])))
                    self._in_round.set()


class SlowConnection:
    """Begins to speak HTTP/2, a byte each time."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._said = itertools.chain(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", itertools.repeat(0))

    def sends_a_byte(self) -> None:
        with suppress(OSError):  # the server may hang up
            self._socket.send(bytes((next(self._said),)))

    def stops(self) -> None:
        self._socket.close()


@contextmanager
def sending(senders: Sequence[SlowSender | SlowConnection]) -> Iterator[None]:
    """Each sends a byte a second, until the block is left."""
    over = threading.Event()

    def send() -> None:
        while not over.wait(SECONDS):
            for sender in senders:
                sender.sends_a_byte()

    thread = threading.Thread(target=send, name="slow senders")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for sender in senders:
            sender.stops()


@contextmanager
def server_of(launch: Launch, *flags: str) -> Iterator[tuple[Process, Attacker]]:
    with ExitStack() as stack:
        listen = ("--listen", "127.0.0.1:0", "--run-dir", "run")
        server = stack.enter_context(launch("hetero-server", *listen, *AGREED, *flags))
        channel = stack.enter_context(grpc.insecure_channel(server.address))
        yield server, Attacker.of(channel, server.address, "slow")


def honest(launch: Launch, server: Process) -> tuple[Finished, Path]:
    """A client that trains its run to the end."""
    flags = ("--server", server.address, "--cut-layer", str(CUT), "--run-dir", "run", *DATA)
    with launch("hetero-client", *flags, "--client-id", "client-1") as client:
        return client.finish(), client.folder / "run"


def require_same(simulate: Simulate, rounds: str, server: Process, client_run: Path) -> None:
    alone = simulate("--clients", "1", "--cut-layers", str(CUT), *AGREED, "--rounds", rounds, *DATA)
    assert bits(server.folder / "run" / MODEL_FILE) == bits(alone / MODEL_FILE)
    assert bits(client_run / MODEL_FILE) == bits(alone / "client-1.safetensors")


def test_slow_connections_and_calls_do_not_hold_up_a_run(
    launch: Launch, simulate: Simulate
) -> None:
    rounds = "200"
    with server_of(launch, "--rounds", rounds) as (server, attacker):
        pushes = pb.PushStateRequest(header=pb.StateHeader(bytes=5000)).SerializeToString()
        senders: list[SlowSender | SlowConnection] = []
        for number in range(SLOW // 2):
            session = attacker.registers(f"slow-{number}")
            senders.append(SlowSender(attacker, "PushState", session, pushes))
            senders.append(SlowConnection(server.address))
        with sending(senders):
            done, run = honest(launch, server)
            ended = server.finish()
        assert (done.code, ended.code) == (0, 0), done.stderr
        require_same(simulate, rounds, server, run)


def test_slow_members_hold_up_a_round_for_the_patience_and_no_longer(
    launch: Launch, simulate: Simulate
) -> None:
    """They are members of each round, and let go in each; nor does the end wait for them."""
    rounds = "3"
    flags = ("--rounds", rounds, "--clients", str(SLOW + 1), "--patience", "2")
    with server_of(launch, *flags) as (server, attacker):
        sessions = [attacker.registers(f"slow-{number}") for number in range(SLOW)]
        with sending([SlowMember(attacker, session) for session in sessions]):
            done, run = honest(launch, server)
            ended = server.finish()
        assert (done.code, ended.code) == (0, 0), done.stderr
        released = [e for e in read_records(server.folder / "run") if e["event"] == "released"]
        assert {e["round"] for e in released} == {0, 1, 2}
        assert {e["client"] for e in released} == {f"slow-{number}" for number in range(SLOW)}
        require_same(simulate, rounds, server, run)
