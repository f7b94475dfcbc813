from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from hetero_common.wire.credentials import read_certificates
from hetero_server.auth.certs import main
from hetero_server.auth.identity import TokenOwners


def names_of(certificate: Path) -> tuple[str, set[str]]:
    """Common name, and the names and addresses it is good for."""
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    (common,) = loaded.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        hosts = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return str(common.value), set()
    return str(common.value), {str(host.value) for host in hosts}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_everything_for_a_server_and_two_clients(tmp_path: Path) -> None:
    umlaut = "größe 2"
    hosts = "splitee.example,192.0.2.7,::1,127.0.0.1"
    flags = ("--server", hosts, "--client", "board-1", "--client", umlaut)
    assert main([str(tmp_path), *flags]) == 0
    assert names_of(tmp_path / "server" / "server.pem")[1] == {
        *(
            "localhost",
            "127.0.0.1",
            "splitee.example",
            "192.0.2.7",
            str(ipaddress.ip_address("::1")),
        )
    }
    read_certificates(tmp_path / "server", "server")
    for client in ("board-1", umlaut):
        folder = tmp_path / "clients" / client
        assert names_of(folder / "client.pem") == (client, set())
        read_certificates(folder, "client")
    keys = sorted(tmp_path.rglob("*.key"))
    assert len(keys) == 4
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    for folder in tmp_path.rglob("*"):  # the authority's key does not travel
        assert folder.name != "ca.key" or folder.parent == tmp_path


def test_a_second_run_adds_and_renews_with_the_same_authority(tmp_path: Path) -> None:
    assert main([str(tmp_path), "--server", "a.example", "--client", "a"]) == 0
    before = contents(tmp_path)
    assert main([str(tmp_path), "--client", "b", "--client", "a"]) == 0
    after = contents(tmp_path)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"clients/a/client.pem", "clients/a/client.key"}
    assert set(after) - set(before) == {
        f"clients/b/{n}" for n in ("ca.pem", "client.pem", "client.key")
    }
    assert (tmp_path / "clients/a/client.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["no ca.pem", "no ca.key", "another ca.key", "junk"])
def test_an_authority_is_never_replaced(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    for folder in (ours, other):
        assert main([str(folder), "--client", "a"]) == 0
    match damage:
        case "no ca.pem":
            (ours / "ca.pem").unlink()
        case "no ca.key":
            (ours / "ca.key").unlink()
        case "another ca.key":
            (ours / "ca.key").write_bytes((other / "ca.key").read_bytes())
        case "junk":
            (ours / "ca.key").write_text("junk")
    before = contents(ours)
    assert main([str(ours), "--client", "b"]) == 2
    assert contents(ours) == before
    assert str(ours / "ca.key") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "nothing to make: give --server HOST, --client ID or --viewer NAME"),
        (("--client", "../x"), "--client '../x': an id has 1 to 64 printable bytes"),
        (("--client", ".."), "--client '..': an id has"),
        (("--client", ""), "--client '': an id has"),
        (("--client", "a" * 65), "an id has 1 to 64 printable bytes"),
        (("--client", "é" * 32 + "a"), "an id has 1 to 64 printable bytes"),
        (("--client", "a\nb"), "an id has 1 to 64 printable bytes"),
        (("--server", "größe.example"), "is neither a host name nor an address"),
        (("--server", "h", "--days", "0"), "--days is 1 or more"),
    ],
)
def test_what_is_refused_leaves_nothing(
    flags: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(tmp_path), *flags]) == 2
    assert contents(tmp_path) == {}
    error = capsys.readouterr().err
    assert error.startswith("hetero-certs: ") and sentence in error and error.count("\n") == 1


def test_a_viewer_keeps_the_token_and_the_server_knows_its_digest(tmp_path: Path) -> None:
    assert main([str(tmp_path), "--viewer", "prometheus"]) == 0
    token = tmp_path / "viewers" / "prometheus"
    first = token.read_text()
    assert token.stat().st_mode & 0o777 == 0o600
    assert main([str(tmp_path), "--viewer", "me", "--viewer", "prometheus"]) == 0
    assert token.read_text() == first
    owners = TokenOwners(tmp_path / "server" / "viewers", "--http-tokens")
    assert owners.owner(first) == "prometheus"
    assert owners.owner((tmp_path / "viewers" / "me").read_text()) == "me"
    assert owners.owner("") is None


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\nb"])
def test_a_viewers_name_is_one_of_a_file(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--viewer", name]) == 2
    assert "--viewer" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
