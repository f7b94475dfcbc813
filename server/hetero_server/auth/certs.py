"""hetero-certs: a certificate authority of one's own, and certificates of a server and its clients.

hetero-certs certs --server board-host,192.0.2.7 --client board-1 --client board-2

leaves in the directory `certs`

    ca.pem, ca.key        the authority; the key stays here
    server/               to be copied to the server, for its --certs
    clients/board-1/      to be copied to that client, for its --certs

and with --viewer NAME, for the server's page where other machines can reach it,

    viewers/NAME          the token of who may look
    server/viewers        for --http-tokens of the server

Run again, it makes further certificates, and renews those it is asked for, of the same authority.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import ipaddress
import os
import secrets
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hetero_common.errors import SettingsError
from hetero_common.version import __version__
from hetero_common.wire.credentials import CA_FILE

CA_KEY_FILE = "ca.key"
VIEWERS_FILE = "viewers"
_CA_DAYS = 3650
_ALWAYS = ("localhost", "127.0.0.1")
_EARLIER = timedelta(minutes=5)  # for clocks that are behind
_LONGEST_NAME = 64  # bytes of a common name, by X.509


@dataclass(frozen=True)
class Authority:
    """A certificate authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, days: int = _CA_DAYS) -> Authority:
        """Make one that is valid for so many days."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("hetero-splitee certificate authority")
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = (
            _builder(name, name, key, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def of(cls, directory: Path) -> Authority:
        """The one in the directory, made first where there is none.

        Raises:
            SettingsError: There is half of one, or what is there cannot be read.
        """
        certificate, key = directory / CA_FILE, directory / CA_KEY_FILE
        if not certificate.exists() and not key.exists():
            made = cls.new()
            _write_private(key, _pem(made.key), exclusive=True)
            certificate.write_bytes(made.certificate.public_bytes(serialization.Encoding.PEM))
            return made
        try:
            private = serialization.load_pem_private_key(key.read_bytes(), None)
            public = x509.load_pem_x509_certificate(certificate.read_bytes())
        except (OSError, ValueError, TypeError):
            raise SettingsError(
                f"{certificate} and {key} are no certificate authority: "
                "name another directory, or put back the one that is missing"
            ) from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or (
            private.public_key() != public.public_key()
        ):
            raise SettingsError(f"{key} is not the key of {certificate}")
        return cls(public, private)

    def issue(
        self, directory: Path, side: str, name: str, days: int, hosts: Iterable[str] = ()
    ) -> None:
        """Write a certificate, its key and `ca.pem` into the directory of one machine.

        Args:
            directory: Made if need be; an earlier certificate in it is replaced.
            side: `server` or `client`.
            name: The common name; of a client, its id.
            days: Until it expires; negative for one that has.
            hosts: Names and addresses by which clients call a server.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        purpose = {
            "server": ExtendedKeyUsageOID.SERVER_AUTH,
            "client": ExtendedKeyUsageOID.CLIENT_AUTH,
        }[side]
        builder = (
            _builder(_name(name), self.certificate.subject, key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        directory.mkdir(parents=True, exist_ok=True)
        pem = serialization.Encoding.PEM
        _write_private(directory / f"{side}.key", _pem(key))
        _replace(directory / f"{side}.pem", certificate.public_bytes(pem))
        _replace(directory / CA_FILE, self.certificate.public_bytes(pem))


def main(flags: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    arguments = _parser().parse_args(flags)
    try:
        _run(
            arguments.directory,
            arguments.server,
            arguments.client,
            arguments.viewer,
            arguments.days,
        )
    except SettingsError as error:
        print(f"hetero-certs: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"hetero-certs: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hetero-certs",
        description="Make a certificate authority, and certificates of a server and its clients.",
        epilog="Existing authorities are used, never replaced. See docs/security.md.",
    )
    parser.add_argument("--version", action="version", version=f"hetero-certs {__version__}")
    parser.add_argument("directory", type=Path, metavar="DIR", help="where everything is kept")
    parser.add_argument(
        "--server",
        metavar="HOST[,HOST...]",
        help="names and addresses by which clients call the server; localhost always works",
    )
    parser.add_argument(
        "--client", action="append", default=[], metavar="ID", help="a client id; repeat for more"
    )
    parser.add_argument(
        "--viewer",
        action="append",
        default=[],
        metavar="NAME",
        help="who may look at the server's page, with a token; repeat for more",
    )
    parser.add_argument("--days", type=int, default=365, help="validity (default: %(default)s)")
    return parser


def _run(
    directory: Path,
    server: str | None,
    clients: Sequence[str],
    viewers: Sequence[str],
    days: int,
) -> None:
    if server is None and not clients and not viewers:
        raise SettingsError("nothing to make: give --server HOST, --client ID or --viewer NAME")
    if days < 1:
        raise SettingsError("--days is 1 or more")
    for client_id in clients:
        _require_name("--client", client_id)
    for viewer in viewers:
        _require_name("--viewer", viewer)
    hosts = [host for host in (server or "").split(",") if host]
    for host in hosts:
        _host(host)
    directory.mkdir(parents=True, exist_ok=True)
    authority = Authority.of(directory)
    if server is not None:
        everywhere = dict.fromkeys((*_ALWAYS, *hosts))
        authority.issue(directory / "server", "server", "hetero-server", days, everywhere)
        print(f"{directory / 'server'}: for --certs of the server ({', '.join(everywhere)})")
    for client_id in clients:
        folder = directory / "clients" / client_id
        authority.issue(folder, "client", client_id, days)
        print(f"{folder}: for --certs of the client with --client-id {client_id}")
    if viewers:
        _admit(directory, viewers)


def _admit(directory: Path, viewers: Sequence[str]) -> None:
    """Tokens of viewers, each made once; the server gets their digests alone."""
    folder, digests = directory / "viewers", directory / "server" / VIEWERS_FILE
    for parent in (folder, digests.parent):
        parent.mkdir(parents=True, exist_ok=True)
    for viewer in viewers:
        token = folder / viewer
        with contextlib.suppress(FileExistsError):
            _write_private(token, secrets.token_hex(32).encode(), exclusive=True)
        print(f"{token}: the token of {viewer}, a password for browsers")
    lines = (
        f"{token.name} {hashlib.sha256(token.read_bytes()).hexdigest()}\n"
        for token in sorted(folder.iterdir())
    )
    _replace(digests, "".join(lines).encode())
    print(f"{digests}: for --http-tokens of the server")


def _require_name(flag: str, name: str) -> None:
    """It becomes a common name, and the name of a folder or file."""
    is_file = "/" not in name and name not in (".", "..")
    if not (1 <= len(name.encode()) <= _LONGEST_NAME and name.isprintable() and is_file):
        raise SettingsError(
            f"{flag} {name!r}: an id has 1 to {_LONGEST_NAME} printable bytes, no slash"
        )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError:
        raise SettingsError(f"--server {text!r} is neither a host name nor an address") from None


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    until = datetime.now(timezone.utc) + timedelta(days=days)
    begin = min(datetime.now(timezone.utc), until) - _EARLIER
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(until)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write_private(file: Path, data: bytes, *, exclusive: bool = False) -> None:
    """Readable by the owner from the first byte on; `exclusive` never replaces a file."""
    if exclusive:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(data)
        return
    _replace(file, data, mode=0o600)


def _replace(file: Path, data: bytes, mode: int = 0o644) -> None:
    """A running server reads either the old file or the new one."""
    partial = file.with_name(f"{file.name}.new")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
        opened.write(data)
    partial.replace(file)


if __name__ == "__main__":
    sys.exit(main())
