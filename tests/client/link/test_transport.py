from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hetero_client.link.transport import ServerLink, ServerStatus
from hetero_common.errors import (
    ServerUnreachable,
    SettingsError,
    Unauthenticated,
)
from hetero_server.net.listener import Listener
from support.in_process_server import (
    SECONDS,
    InProcessServer,
    Pki,
    a_service,
    with_server,
)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.make(tmp_path_factory.mktemp("pki"))


@pytest.mark.parametrize(
    ("server", "client", "sentence"),
    [
        ("server", "stranger", "refused this client's certificate: check that client.pem"),
        ("server", "expired", "refused this client's certificate: check that client.pem"),
        ("server", "theirs", "server.pem does not come from the authority in this client's ca.pem"),
        (
            "their server",
            "a",
            "server.pem does not come from the authority in this client's ca.pem",
        ),
        ("expired server", "a", "the server's server.pem, or its ca.pem, has expired"),
        ("elsewhere", "a", "server.pem does not name the host of --server"),
        (None, "a", "the server does not speak TLS: start it with --certs"),
    ],
)
def test_a_failed_handshake_says_what_to_check(
    server: str | None, client: str, sentence: str, pki: Pki
) -> None:
    def body(server: InProcessServer) -> None:
        with (
            ServerLink(server.address, connect_timeout=20, certs=pki[client]) as link,
            pytest.raises(Unauthenticated, match=sentence),
        ):
            link.status()

    with_server(body, certs=pki[server] if server else None)


def test_a_server_that_is_gone_is_not_taken_for_one_that_refuses(pki: Pki) -> None:
    address = with_server(lambda server: server.address, certs=pki["server"])
    with (
        ServerLink(address, connect_timeout=0.1, certs=pki["a"]) as link,
        pytest.raises(ServerUnreachable),
    ):
        link.status()


def test_a_token_does_not_go_out_unencrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for insecure in (False, True):
        with pytest.raises(SettingsError, match="does not go out unencrypted"):
            ServerLink("192.0.2.7:1", token="x", insecure=insecure)


def test_a_client_waits_for_a_server_that_is_still_loading(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> ServerStatus:
        front = await Listener.open("127.0.0.1:0")
        with ServerLink(f"127.0.0.1:{front.port}", connect_timeout=SECONDS) as link:
            answer = asyncio.create_task(asyncio.to_thread(link.status))
            while "still loading" not in caplog.text:
                await asyncio.sleep(0.01)
            assert not answer.done()
            front.serve(a_service()[0])
            status = await answer
        await front.close()
        return status

    assert asyncio.run(main()).run.phase == "WAITING"
