"""Real processes over mutual TLS: those with a certificate train, the others are sent away."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hetero_server.auth.certs import Authority
from support.commands import ERROR_NAMES, SMALL

if TYPE_CHECKING:
    from e2e.conftest import Finished, Launch

DATA = ("--dataset", "digits", "--eval-samples", "50")
SHORT = ("--batch-size", "8", "--rounds", "1", "--steps-per-round", "2", "--run-dir", "run")
REFUSED = (
    "the server refused this client's certificate: check that client.pem is there, has not "
    "expired, and comes from the authority in the server's ca.pem"
)
SENTENCES = {
    "another board's": "this credential is board-2's and not board-1's",
    "of another authority": REFUSED,
    "expired": REFUSED,
    "none": REFUSED,
}
"""What a client says that shows such a certificate and registers as board-1."""


@dataclass
class Visit:
    """A server that has said why it turned clients away, when its run was over."""

    server: Finished | None = None
    clients: dict[str, Finished] = field(default_factory=dict)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    ours, theirs = Authority.new(), Authority.new()
    ours.issue(folder / "server", "server", "server", 9, ("localhost",))
    ours.issue(folder / "its own", "client", "board-1", 9)
    ours.issue(folder / "another board's", "client", "board-2", 9)
    ours.issue(folder / "expired", "client", "board-1", -1)
    theirs.issue(folder / "of another authority", "client", "board-1", 9)
    (folder / "none").mkdir()
    for name in ("of another authority", "none"):  # they know our server all the same
        (folder / name / "ca.pem").write_bytes((folder / "server" / "ca.pem").read_bytes())
    return folder


@pytest.fixture(scope="module")
def visit(launch: Launch, certs: Path) -> Visit:
    visit = Visit()
    tls = ("--certs", str(certs / "server"), "--listen", "0.0.0.0:0")
    # So that gRPC says what it knows of a handshake that fails; see docs/security.md.
    with launch("hetero-server", *SMALL, *SHORT, *tls, GRPC_VERBOSITY="INFO") as server:
        where = ("--server", f"localhost:{server.address.rpartition(':')[2]}")
        who = ("--client-id", "board-1", "--cut-layer", "2", *DATA)
        for name in (*SENTENCES, "its own"):
            # Only with a token does a client go without a certificate; nobody here looks at it.
            token = ("--token", "x") if name == "none" else ()
            flags = (*where, "--certs", str(certs / name), *who, *token)
            with launch("hetero-client", *flags) as process:
                visit.clients[name] = process.finish()
        visit.server = server.finish()
    return visit


@pytest.mark.parametrize("name", SENTENCES)
def test_a_client_without_its_own_certificate_is_told_what_to_check(
    name: str, visit: Visit
) -> None:
    done = visit.clients[name]
    last = done.stderr.splitlines()[-1]
    assert (done.code, last.startswith(f"hetero-client: {SENTENCES[name]}")) == (1, True), last
    assert not any(name in last for name in ERROR_NAMES)


def test_the_client_with_its_own_certificate_trains(visit: Visit) -> None:
    assert visit.server is not None
    assert (visit.clients["its own"].code, visit.server.code) == (0, 0)


@pytest.mark.parametrize(
    "reason",
    ["certificate signature failure", "certificate has expired", "DID_NOT_RETURN_A_CERTIFICATE"],
)
def test_the_server_s_log_can_say_why_a_handshake_failed(reason: str, visit: Visit) -> None:
    assert visit.server is not None
    log = visit.server.stderr.splitlines()
    assert [line for line in log if "Handshake failed" in line and reason in line]
