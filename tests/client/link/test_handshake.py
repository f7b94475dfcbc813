from __future__ import annotations

import pytest

from hetero_client.link.handshake import refused_handshake

PREFIX = "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: "


@pytest.mark.parametrize(
    "details",
    [
        "",
        "Socket closed",  # an open connection that broke
        f"{PREFIX}Handshake read failed (Socket closed)",  # a port forwarder without a server
        f"{PREFIX}Handshake write failed (sendmsg: Connection reset by peer (104))",
        f"{PREFIX}Failed to connect to remote host: Connection refused",
    ],
)
def test_a_server_that_is_away_is_waited_for(details: str) -> None:
    assert refused_handshake(details) is None


def test_older_grpc_says_it_in_other_words() -> None:
    said = f"{PREFIX}Peer name 127.0.0.1 is not in peer certificate"
    assert "does not name the host of --server" in (refused_handshake(said) or "")
