from __future__ import annotations

from pathlib import Path

import pytest

from hetero_client.link.handshake import refused_handshake
from hetero_client.settings import ClientSettings
from hetero_common.errors import SettingsError
from hetero_common.settings import as_yaml, load

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


def test_tokens_come_from_a_flag_a_variable_or_a_file_and_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(*flags: str) -> ClientSettings:
        return load(ClientSettings, flags, "hetero-client")

    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert settings().resolved_token() is None
    assert settings("--token-file", str(file)).resolved_token() == "from-file"
    assert settings("--token", "from-flag").resolved_token() == "from-flag"
    monkeypatch.setenv("HETERO_TOKEN", "from-variable")
    found = settings("--token-file", str(file))
    assert found.resolved_token() == "from-variable"
    assert "from-variable" not in as_yaml(found) + repr(found)


@pytest.mark.parametrize("text", ["", "two words", "größe", "line\nbreak"])
def test_what_is_no_token_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    settings = load(ClientSettings, ("--token-file", str(file)), "hetero-client")
    with pytest.raises(SettingsError, match="a token consists of"):
        settings.resolved_token()


def test_the_settings_of_the_other_side_are_no_misspelling(monkeypatch: pytest.MonkeyPatch) -> None:
    from hetero_server.settings import ServerSettings

    monkeypatch.setenv("HETERO_TOKEN", "x")
    monkeypatch.setenv("HETERO_TOKENS", "y")
    assert load(ServerSettings, (), "hetero-server").tokens == Path("y")
    load(ClientSettings, (), "hetero-client")
    monkeypatch.setenv("HETERO_TOKENZ", "y")
    with pytest.raises(SettingsError, match="did you mean HETERO_TOKEN"):
        load(ClientSettings, (), "hetero-client")
