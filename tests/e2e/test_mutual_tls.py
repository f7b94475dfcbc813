"""Real processes over mutual TLS: those with a certificate train, the others are sent away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.commands import ERROR_NAMES, SMALL
from hetero_server.certs import main

if TYPE_CHECKING:
    from e2e.conftest import Launch

DATA = ("--dataset", "digits", "--eval-samples", "50")


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    made = main(
        [str(folder), "--server", "localhost", "--client", "board-1", "--client", "board-2"]
    )
    assert made == 0
    assert main([str(folder / "other"), "--client", "board-1"]) == 0
    stranger = folder / "other" / "clients" / "board-1"
    (stranger / "ca.pem").write_bytes((folder / "ca.pem").read_bytes())
    return folder


def test_who_has_a_certificate_trains_and_nobody_else(launch: Launch, certs: Path) -> None:
    short = ("--batch-size", "8", "--rounds", "1", "--steps-per-round", "2", "--run-dir", "run")
    tls = ("--certs", str(certs / "server"), "--listen", "0.0.0.0:0")
    with launch("hetero-server", *SMALL, *short, *tls) as server:
        port = server.address.rpartition(":")[2]

        def client(folder: Path) -> tuple[str, ...]:
            where = ("--server", f"localhost:{port}", "--certs", str(folder))
            return ("hetero-client", *where, "--client-id", "board-1", "--cut-layer", "2", *DATA)

        refused = {
            certs / "clients" / "board-2": "this credential is board-2's and not board-1's",
            certs / "other" / "clients" / "board-1": "the server refused this client's certificate",
        }
        for folder, sentence in refused.items():
            with launch(*client(folder)) as process:
                done = process.finish()
            assert done.code == 1
            last = done.stderr.splitlines()[-1]
            assert last.startswith(f"hetero-client: {sentence}"), done.stderr
            assert not any(name in last for name in ERROR_NAMES)
        with launch(*client(certs / "clients" / "board-1")) as process:
            assert process.finish().code == 0
        done = server.finish()
    assert done.code == 0
    assert "SSL_ERROR" not in done.stderr  # of whoever knocks, gRPC does not write to our log
