from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as pem

from hetero_common.errors import SettingsError
from hetero_common.wire.credentials import (
    Side,
    certificates_for,
    channel_credentials,
    is_loopback,
    read_certificates,
    server_credentials,
)
from hetero_server.auth.certs import Authority


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """A directory with everything for both sides."""
    authority = Authority.new()
    authority.issue(tmp_path / "both", "server", "server", 9, ("localhost",))
    authority.issue(tmp_path / "both", "client", "a", 9)
    return tmp_path / "both"


def refusal(directory: Path, side: Side) -> str:
    with pytest.raises(SettingsError) as caught:
        if side == "server":
            server_credentials(directory, ask_clients=True)
        else:
            channel_credentials(directory, anonymous=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("file", ["ca.pem", "SIDE.pem", "SIDE.key"])
def test_a_missing_or_wrong_file_is_named(side: Side, file: str, certs: Path) -> None:
    path = certs / file.replace("SIDE", side)
    for junk in ("", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        path.write_text(junk)
        assert str(path) in refusal(certs, side)
    path.unlink()
    assert refusal(certs, side).startswith(f"{path} cannot be read (No such file or directory): ")
    path.mkdir()
    assert refusal(certs, side).startswith(f"{path} cannot be read (Is a directory): ")


def test_a_key_of_another_certificate_is_refused(certs: Path) -> None:
    (certs / "server.key").write_bytes((certs / "client.key").read_bytes())
    assert "server.key are no PEM certificate and its unencrypted private key" in refusal(
        certs, "server"
    )


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(certs: Path) -> None:
    key = pem.load_pem_private_key((certs / "server.key").read_bytes(), None)
    encryption = pem.BestAvailableEncryption(b"secret")
    (certs / "server.key").write_bytes(
        key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, encryption)
    )
    assert "its unencrypted private key" in refusal(certs, "server")


def test_who_has_a_token_needs_no_certificate_but_half_of_one_is_a_mistake(certs: Path) -> None:
    (certs / "client.key").unlink()
    with pytest.raises(SettingsError, match=r"client\.key cannot be read"):
        read_certificates(certs, "client", anonymous=True)
    (certs / "client.pem").unlink()
    assert read_certificates(certs, "client", anonymous=True).chain == b""
    assert "client.pem" in refusal(certs, "client")


@pytest.mark.parametrize(
    ("address", "is_so"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.0.2.7:1", False),
        ("localhost.example.org:1", False),
        ("", False),
    ],
)
def test_loopback(address: str, is_so: bool) -> None:
    assert is_loopback(address) is is_so


def test_the_default_directory_is_for_other_machines_and_only_if_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert certificates_for("192.0.2.7:1", None) is None
    default = tmp_path / ".config" / "hetero-splitee" / "certs"
    default.mkdir(parents=True)
    assert certificates_for("192.0.2.7:1", None) == default
    assert certificates_for("localhost:1", None) is None
    assert certificates_for("192.0.2.7:1", None, insecure=True) is None
    assert certificates_for("192.0.2.7:1", tmp_path, insecure=True) == tmp_path
    for address in ("localhost:1", "192.0.2.7:1"):
        assert certificates_for(address, tmp_path) == tmp_path
