"""A connection that is dead without being closed: it can be given up, and another one opened."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from hetero_client.link.calls import Calls
from hetero_common.errors import HeteroError, ServerUnreachable
from hetero_splitee.v1 import service_pb2 as pb


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)
        yield listening


@pytest.fixture
def calls(silent: socket.socket) -> Iterator[Calls]:
    calls = Calls("{}:{}".format(*silent.getsockname()))
    yield calls
    calls.close()


def ask(calls: Calls) -> None:
    """Wait for an answer, however long it takes."""
    calls.unary("GetStatus", pb.GetStatusRequest(), None)


def read(calls: Calls) -> None:
    with calls.translated():
        list(calls.stream("PullState", pb.PullStateRequest()))


@pytest.mark.parametrize("call", [ask, read])
def test_giving_up_ends_calls_that_would_wait_for_ever(
    call: object, calls: Calls, silent: socket.socket
) -> None:
    errors: list[HeteroError] = []

    def wait() -> None:
        try:
            ask(calls) if call is ask else read(calls)
        except HeteroError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    connection, _ = silent.accept()
    with connection:
        calls.give_up()
        waiting.join()
    assert [type(error) for error in errors] == [ServerUnreachable]
    with pytest.raises(ServerUnreachable):
        ask(calls)


def test_another_connection_is_another_one(calls: Calls, silent: socket.socket) -> None:
    connections = []
    for _ in range(2):
        waiting = threading.Thread(target=pytest.raises, args=(ServerUnreachable, ask, calls))
        waiting.start()
        connections.append(silent.accept()[0])
        calls.give_up()
        waiting.join()
        calls.redial()
    for connection in connections:
        connection.close()
