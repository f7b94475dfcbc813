from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import pytest

from hetero_common.errors import PermissionDenied, SettingsError, Unauthenticated
from hetero_server.auth.identity import Caller, TokenOwners, anybody, certificate_owner

DIGEST = hashlib.sha256(b"secret").hexdigest()


class Context:
    """What identities are read from."""

    def __init__(self, *metadata: tuple[str, str], names: tuple[bytes, ...] = ()) -> None:
        self._metadata, self._names = metadata, names

    def invocation_metadata(self) -> Any:
        return self._metadata or None

    def auth_context(self) -> dict[str, tuple[bytes, ...]]:
        return {"x509_common_name": self._names} if self._names else {}


def context(*metadata: tuple[str, str], names: tuple[bytes, ...] = ()) -> Any:
    return cast(Any, Context(*metadata, names=names))


def owners(tmp_path: Path, text: str) -> TokenOwners:
    file = tmp_path / "tokens"
    file.write_text(text)
    return TokenOwners(file)


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer "])
def test_a_token_has_an_owner_and_an_owner_may_have_two(scheme: str, tmp_path: Path) -> None:
    new = hashlib.sha256(b"new").hexdigest().upper()
    known = owners(tmp_path, f"# comment\n\nboard 1 {DIGEST}\n  board 1 {new}\n")
    for token in ("secret", "new"):
        assert known(context(("authorization", scheme + token))) == "board 1"


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer "),),
        (("authorization", "secret"),),
        (("authorization", "Basic secret"),),
        (("authorization", "Bearer secret "),),
        (("authorization", f"Bearer {DIGEST}"),),
        (("authorization", "Bearer secret"), ("authorization", "Bearer secret")),
    ],
)
def test_anything_else_is_not_the_token(metadata: tuple[Any, ...], tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated):
        owners(tmp_path, f"a {DIGEST}")(context(*metadata))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (DIGEST, "line 1: write `client-id sha256-hex`"),
        (f"a {DIGEST}\nb secret", "line 2: write `client-id sha256-hex`"),
        (f"a {DIGEST[:-1]}x", "line 1: write `client-id sha256-hex`"),
        ("# none\n", "holds no token: nobody could come in"),
    ],
)
def test_a_bad_file_of_tokens_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=sentence) as caught:
        owners(tmp_path, text)
    assert "secret" not in str(caught.value)


def test_a_missing_file_of_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be read: No such file"):
        TokenOwners(tmp_path / "tokens")
    (tmp_path / "tokens").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"cannot be read: it is not UTF-8"):
        TokenOwners(tmp_path / "tokens")


def test_a_certificate_has_one_common_name() -> None:
    assert certificate_owner(context(names=("größe".encode(),))) == "größe"
    for names in ((), (b"",), (b"a", b"b")):
        with pytest.raises(Unauthenticated):
            certificate_owner(context(names=names))


def test_who_may_act_as_whom() -> None:
    Caller.of(context(), anybody).require("a")
    Caller("a").require("a")
    for identity in ("", "b", "A", "a "):
        with pytest.raises(PermissionDenied):
            Caller(identity).require("a")
