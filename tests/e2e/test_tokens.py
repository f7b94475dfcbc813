"""Real processes with tokens: whose token is known trains, the others are sent away."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hetero_server.auth.certs import main
from support.commands import ERROR_NAMES, LOG_LINE, SMALL

if TYPE_CHECKING:
    from e2e.conftest import Finished, Launch

DATA = ("--dataset", "digits", "--eval-samples", "50")
SHORT = ("--batch-size", "8", "--rounds", "1", "--steps-per-round", "2", "--run-dir", "run")
TOKEN = "3f1c8a52d6e94b07"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of the server, and a file of one token."""
    folder = tmp_path_factory.mktemp("tokens")
    assert main([str(folder / "certs"), "--server", "localhost"]) == 0
    known = folder / "known"
    known.mkdir()
    (known / "ca.pem").write_bytes((folder / "certs" / "ca.pem").read_bytes())
    (folder / "tokens").write_text(f"board-1 {hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    return folder


@pytest.mark.parametrize("encrypted", [False, True], ids=["loopback", "TLS"])
def test_who_has_a_token_trains_and_nobody_else(
    encrypted: bool, launch: Launch, folder: Path
) -> None:
    flags_of_server = ("--tokens", str(folder / "tokens"), "--listen")
    tls = ("--certs", str(folder / "certs" / "server"))
    knows = ("--certs", str(folder / "known")) if encrypted else ()
    listen = ("0.0.0.0:0", *tls) if encrypted else ("127.0.0.1:0",)
    with launch("hetero-server", *SMALL, *SHORT, *flags_of_server, *listen) as server:
        where = ("--server", f"localhost:{server.address.rpartition(':')[2]}", *knows)

        def board(token: str) -> Finished:
            flags = (*where, "--client-id", "board-1", "--cut-layer", "2", *DATA)
            with launch("hetero-client", *flags, **({"HETERO_TOKEN": token} if token else {})) as p:
                return p.finish()

        require_refusal(board("x" * 16), "this server does not know the token: check --token")
        if encrypted:
            knocks_in_the_clear(server.address)
        else:  # with TLS and without a token, it would need a certificate
            require_refusal(board(""), "this server asks for a token: give --token or --token-file")
        trained = board(TOKEN)
        done = server.finish()
    assert (trained.code, done.code) == (0, 0), trained.stderr
    assert TOKEN not in trained.stderr + done.stderr
    assert all(LOG_LINE.match(line) for line in done.stderr.splitlines())  # gRPC says nothing


def knocks_in_the_clear(address: str) -> None:
    with socket.create_connection(("localhost", int(address.rpartition(":")[2]))) as knocking:
        knocking.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while knocking.recv(1024):
            pass


def require_refusal(done: Finished, sentence: str) -> None:
    last = done.stderr.splitlines()[-1]
    assert (done.code, last.startswith(f"hetero-client: {sentence}")) == (1, True), done.stderr
    assert not any(name in last for name in ERROR_NAMES)
