"""TLS certificates of both sides, read from a directory, as credentials of gRPC.

A directory holds `ca.pem`, which tells both sides whom to believe, and the side's own certificate
and key: `server.pem` and `server.key`, or `client.pem` and `client.key`. `hetero-certs` makes them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc

from hetero_common.errors import SettingsError

CA_FILE = "ca.pem"
DEFAULT_DIRECTORY = Path("~/.config/hetero-splitee/certs")

Side = Literal["server", "client"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Certificates:
    """What one side's directory holds, in PEM; chain and key are empty for a side without.

    Attributes:
        roots: Whom to believe.
    """

    roots: bytes
    chain: bytes = b""
    key: bytes = b""


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT is out of reach for other machines."""
    host = address.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def certificates_for(address: str, given: Path | None, *, insecure: bool = False) -> Path | None:
    """The directory to use with an address: the given one, else the default one if it exists.

    The default is for other machines only, so that programs of one machine find each other as they
    are; and it is left alone where somebody has spelled out that TLS is not wanted.
    """
    if given is not None or insecure or is_loopback(address):
        return given
    default = DEFAULT_DIRECTORY.expanduser()
    return default if default.is_dir() else None


def read_certificates(directory: Path, side: Side, *, anonymous: bool = False) -> Certificates:
    """Read a side's directory and check that its files fit together.

    Args:
        directory: Holds the files.
        side: Whose certificate to read beside `ca.pem`.
        anonymous: Be content with `ca.pem` where the directory has no certificate of this side.

    Raises:
        SettingsError: A file is missing, cannot be read or is not what its name says.
    """
    certificate, key = directory / f"{side}.pem", directory / f"{side}.key"
    roots = _read(directory / CA_FILE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=roots.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        raise SettingsError(f"{directory / CA_FILE} holds no certificate in PEM form") from None
    if anonymous and not certificate.exists():
        return Certificates(roots)
    found = Certificates(roots, _read(certificate), _read(key))
    try:
        # Without a password of ours OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError, OSError):
        raise SettingsError(
            f"{certificate} and {key} are no PEM certificate and its unencrypted private key"
        ) from None
    return found


def server_credentials(directory: Path, *, ask_clients: bool) -> grpc.ServerCredentials:
    """Credentials of a server that looks for new certificates at each new connection.

    Args:
        directory: Holds `ca.pem`, `server.pem` and `server.key`.
        ask_clients: Turn away whoever has no certificate of the CA's.

    Raises:
        SettingsError: A file is missing or wrong at the start; later, the old ones stay in use.
    """
    current = read_certificates(directory, "server")

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal current
        try:
            found = read_certificates(directory, "server")
        except SettingsError as error:
            log.warning("the certificates in use stay in use: %s", error)
            return None
        if found == current:
            return None
        log.info("new certificates in %s: used from now on", directory)
        current = found
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(current),
        renewed,  # type: ignore[arg-type] # the stubs forget None, for no change
        ask_clients,
    )


def channel_credentials(directory: Path, *, anonymous: bool) -> grpc.ChannelCredentials:
    """Credentials of a client.

    Args:
        directory: Holds `ca.pem`, `client.pem` and `client.key`.
        anonymous: A token says who the client is, so it needs no certificate of its own.

    Raises:
        SettingsError: A file is missing or wrong.
    """
    found = read_certificates(directory, "client", anonymous=anonymous)
    return grpc.ssl_channel_credentials(found.roots, found.key or None, found.chain or None)


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.chain)], certificates.roots
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read ({error.strerror}): hetero-certs makes it, --certs names its "
            "directory"
        ) from None
