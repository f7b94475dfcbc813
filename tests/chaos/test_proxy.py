"""The proxy does what the tests that use it believe, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from support.proxy import DOWN, UP, Proxy, Way


class Echo(socketserver.BaseRequestHandler):
    """Sends everything back."""

    def handle(self) -> None:
        connection: socket.socket = self.request
        with contextlib.suppress(OSError):
            while data := connection.recv(65_536):
                connection.sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with Proxy("{}:{}".format(*server.server_address)) as proxy:
            yield proxy
        server.shutdown()
        thread.join()


def connect(proxy: Proxy) -> socket.socket:
    host, _, port = proxy.address.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.settimeout(30)
    return connection


def read(connection: socket.socket, count: int) -> bytes:
    """So many bytes, or those that come before the end."""
    data = b""
    while len(data) < count:
        try:
            chunk = connection.recv(count - len(data))
        except ConnectionResetError:
            break
        if not chunk:
            break
        data += chunk
    return data


def pattern(count: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(count))


def test_unharmed_bytes_pass(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(pattern(100_000))
        assert read(client, 100_000) == pattern(100_000)
    assert proxy.passed == {UP: 100_000, DOWN: 100_000}
    assert proxy.cuts == 0


@pytest.mark.parametrize("way", [UP, DOWN])
def test_a_cut_comes_after_exactly_so_many_bytes_and_leaves_the_port_open(
    proxy: Proxy, way: Way
) -> None:
    proxy.cut_after(way, 20_000, 30_001)
    for number, count in enumerate((20_000, 30_001), start=1):
        before = proxy.passed[way]
        with connect(proxy) as client:
            client.sendall(pattern(50_000))
            assert len(read(client, 50_000)) <= count
        proxy.wait_for_cuts(number)
        assert proxy.passed[way] - before == count
    with connect(proxy) as client:
        client.sendall(pattern(50_000))
        assert read(client, 50_000) == pattern(50_000)
    assert proxy.cuts == 2


def test_a_cut_counts_from_a_mark_even_one_that_comes_in_pieces(proxy: Proxy) -> None:
    proxy.cut_after(DOWN, 10, mark=b"/here")
    with connect(proxy) as client:
        for piece in (b"a" * 100, b"../he", b"re"):
            client.sendall(piece)
            assert read(client, len(piece)) == piece
        client.sendall(b"b" * 100)
        assert len(read(client, 100)) <= 10
    proxy.wait_for_cuts(1)


def test_silence_closes_nothing_and_only_new_connections_heal(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"one")
        assert read(client, 3) == b"one"
        proxy.go_silent(UP)
        client.sendall(b"two")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.heal()
        client.sendall(b"three")
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert proxy.passed == {UP: 3, DOWN: 3}
    with connect(proxy) as client:
        client.sendall(b"four")
        assert read(client, 4) == b"four"


def test_a_delay_is_a_delay_and_no_limit(proxy: Proxy) -> None:
    proxy.delay(0.1)
    with connect(proxy) as client:
        begin = time.monotonic()
        client.sendall(pattern(500_000))
        assert read(client, 500_000) == pattern(500_000)
        assert time.monotonic() - begin >= 0.2, "there and back"


def test_a_throttled_connection_takes_its_time(proxy: Proxy) -> None:
    proxy.throttle(200_000)
    with connect(proxy) as client:
        begin = time.monotonic()
        client.sendall(pattern(100_000))
        assert read(client, 100_000) == pattern(100_000)
        assert time.monotonic() - begin >= 0.4


def test_a_server_that_is_away_is_an_end_of_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        target = "{}:{}".format(*nobody.getsockname())
    with Proxy(target) as proxy, connect(proxy) as client:
        assert read(client, 1) == b""
