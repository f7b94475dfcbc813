"""Who may come in: every RPC there is, with every kind of credential, against a real server.

The RPCs come from the service's descriptor, so that a new one is tried or fails here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hetero_common.errors import (
    HeteroError,
    LimitExceeded,
    PermissionDenied,
    ServerUnreachable,
    Unauthenticated,
)
from hetero_common.wire import rpc
from hetero_server.settings import LimitSettings
from hetero_splitee.v1 import service_pb2 as pb
from support.in_process_server import (
    SECONDS,
    TOKENS,
    InProcessServer,
    Pki,
    closing,
    with_server,
    write_tokens,
)

METHODS = [method.name for method in rpc.SERVICE.methods]
OPEN_TO_EVERY_CLIENT = {"GetStatus"}
"""Calls that are nobody's in particular."""
NOT_LET_IN = (Unauthenticated, PermissionDenied, ServerUnreachable)

each_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.make(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens") / "tokens")


def expected(method: str, credential: str) -> type[HeteroError] | None:
    """How the call of a caller ends who has got hold of the session of client `a`."""
    if credential == "another":
        return None if method in OPEN_TO_EVERY_CLIENT else PermissionDenied
    return Unauthenticated


def outcome(
    server: InProcessServer,
    method: str,
    owner: tuple[Path | None, str | None],
    caller: tuple[Path | None, str | None],
) -> type[HeteroError] | None:
    owners, callers = server.calls(*owner), server.calls(*caller)
    with closing(owners, callers):
        session = server.register(owners, "a").session
        callers.enter_session(session)
        ended = server.outcome(callers, method)
        if ended in NOT_LET_IN:  # the session it tried to use is as it was
            owners.enter_session(session)
            assert server.outcome(owners, "PullState") is None
        return ended


@each_method
@pytest.mark.parametrize("credential", ["nobody", "stranger", "expired", "another"])
def test_a_certificate_that_is_not_the_clients_does_not_open(
    method: str, credential: str, pki: Pki
) -> None:
    certs = pki["b" if credential == "another" else credential]
    # The token makes the client go without a certificate; this server does not look at tokens.
    caller = (certs, TOKENS["a"] if credential == "nobody" else None)
    ended = with_server(
        lambda server: outcome(server, method, (pki["a"], None), caller), certs=pki["server"]
    )
    assert ended is expected(method, credential)


@each_method
@pytest.mark.parametrize("credential", ["none", "wrong", "another"])
def test_a_token_that_is_not_the_clients_does_not_open(
    method: str, credential: str, pki: Pki, tokens: Path
) -> None:
    token = {"none": None, "wrong": "x" * 20, "another": TOKENS["b"]}[credential]
    # A certificate of `a` makes no difference: this server asks for tokens.
    ended = with_server(
        lambda server: outcome(server, method, (pki["nobody"], TOKENS["a"]), (pki["a"], token)),
        certs=pki["server"],
        tokens=tokens,
    )
    assert ended is expected(method, credential)


@each_method
@pytest.mark.parametrize("kind", ["certificate", "token", "token on loopback", "loopback"])
def test_the_clients_own_credential_opens(method: str, kind: str, pki: Pki, tokens: Path) -> None:
    certs = pki["server"] if kind in ("certificate", "token") else None
    owner = {
        "certificate": (pki["a"], None),
        "token": (pki["nobody"], TOKENS["a"]),
        "token on loopback": (None, TOKENS["a"]),
        "loopback": (None, None),
    }[kind]
    asked = tokens if kind.startswith("token") else None
    ended = with_server(
        lambda server: outcome(server, method, owner, owner), certs=certs, tokens=asked
    )
    assert ended not in NOT_LET_IN


def test_a_client_is_told_whose_credential_it_has(pki: Pki) -> None:
    def body(server: InProcessServer) -> None:
        calls = server.calls(pki["b"])
        with closing(calls), pytest.raises(PermissionDenied, match="b's and not a's: start the"):
            server.register(calls, "a")
        assert not server.engine.members

    with_server(body, certs=pki["server"])


def test_a_token_comes_once(pki: Pki, tokens: Path) -> None:
    def body(server: InProcessServer) -> None:
        calls = server.calls(pki["nobody"], TOKENS["a"])
        calls._metadata = [(rpc.TOKEN_KEY, "Bearer x"), *calls._metadata]
        with closing(calls):
            assert server.outcome(calls, "GetStatus") is Unauthenticated

    with_server(body, certs=pki["server"], tokens=tokens)


# Who asks for too much, or too early.


def test_a_full_server_turns_a_newcomer_away_and_goes_on_with_who_is_there() -> None:
    def body(server: InProcessServer) -> None:
        first, second = server.calls(), server.calls()
        with closing(first, second):
            first.enter_session(server.register(first, "a").session)
            with pytest.raises(LimitExceeded, match="at most 1 clients at a time"):
                server.register(second, "b")
            assert server.outcome(first, "PullState") is None
            assert server.outcome(first, "Leave") is None
            server.register(second, "b")

    with_server(body, limits=LimitSettings(max_clients=1))


def test_a_client_that_registers_without_end_is_stopped() -> None:
    def body(server: InProcessServer) -> None:
        calls = server.calls()
        with closing(calls):
            for _ in range(3):
                server.register(calls, "a")
            with pytest.raises(LimitExceeded, match="do two processes call themselves a"):
                server.register(calls, "a")
            server.register(calls, "b")

    with_server(body, limits=LimitSettings(max_registrations_per_client=3))


def test_a_client_that_opens_calls_without_end_is_stopped_and_others_do_not_notice() -> None:
    def body(server: InProcessServer) -> None:
        greedy, modest = server.calls(), server.calls()
        with closing(greedy, modest):
            modest.enter_session(server.register(modest, "a").session)
            hold = threading.Event()
            opened = [pb.PredictRequest(open=server.predict_open())]

            def requests() -> Iterator[pb.PredictRequest]:
                yield from opened
                hold.wait()

            streams = [greedy.stream("Predict", requests(), timeout=SECONDS) for _ in range(4)]
            while server.outcome(greedy, "GetStatus") is not LimitExceeded:
                pass  # until all of them have arrived
            assert server.outcome(modest, "GetStatus") is None
            for stream in streams:
                stream.cancel()
            while server.outcome(greedy, "GetStatus") is not None:
                pass  # until all of them are gone
            hold.set()

    with_server(body, limits=LimitSettings(max_calls_per_client=4))
