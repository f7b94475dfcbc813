from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from hetero_common.errors import (
    HeteroError,
    SettingsError,
    Unauthenticated,
    UnknownSession,
)
from hetero_server.auth.certs import Authority
from hetero_server.net.listener import Listener
from support.in_process_server import (
    HOSTS,
    SECONDS,
    InProcessServer,
    Pki,
    closing,
    with_server,
    write_tokens,
)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.make(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens") / "tokens")


def test_new_certificates_hold_for_new_connections(pki: Pki, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    shutil.copytree(pki["server"], folder)
    new = Authority.new()
    new.issue(tmp_path / "a", "client", "a", 9)

    def body(server: InProcessServer) -> None:
        before = server.calls(pki["a"])
        with closing(before):
            assert server.outcome(before, "GetStatus") is None
            new.issue(folder, "server", "server", 9, HOSTS)
            after, late = server.calls(tmp_path / "a"), server.calls(pki["a"])
            with closing(after, late):
                assert server.outcome(after, "GetStatus") is None
                assert server.outcome(late, "GetStatus") is Unauthenticated
            assert server.outcome(before, "GetStatus") is None  # its connection is still open

    with_server(body, certs=folder)


@pytest.mark.parametrize("file", ["ca.pem", "server.pem", "server.key"])
def test_broken_certificates_leave_the_old_ones_in_use(
    file: str, pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "server"
    shutil.copytree(pki["server"], folder)

    def body(server: InProcessServer) -> None:
        (folder / file).write_text("not a certificate")
        calls = server.calls(pki["a"])
        with closing(calls):
            assert server.outcome(calls, "GetStatus") is None

    with_server(body, certs=folder)
    assert "the certificates in use stay in use" in caplog.text


def refusal(listen: str, *, insecure: bool = False, tokens: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        asyncio.run(Listener.open(listen, insecure=insecure, tokens=tokens))
    return str(caught.value)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.7:0", "example.org:0"])
def test_an_address_that_others_can_reach_takes_certificates_or_an_explicit_insecure(
    listen: str, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for sentence in (refusal(listen), refusal(listen, tokens=tokens)):
        assert sentence.startswith(f"--listen {listen} can be reached from other machines, with")
        assert "--certs" in sentence and "--insecure" in sentence
    (tmp_path / ".config/hetero-splitee/certs").mkdir(parents=True)
    assert "ca.pem cannot be read" in refusal(listen)


def test_port_0_is_any_free_one_and_a_second_server_on_it_is_refused() -> None:
    async def main() -> str:
        front = await Listener.open("127.0.0.1:0")
        assert front.port > 0
        with pytest.raises(SettingsError) as caught:
            await Listener.open(f"127.0.0.1:{front.port}")
        await front.close()
        again = await Listener.open(f"127.0.0.1:{front.port}")
        await again.close()
        return str(caught.value)

    sentence = asyncio.run(main())
    assert "the port is in use" in sentence and "choose another --listen" in sentence


def test_on_loopback_and_with_the_word_for_it_nothing_else_is_asked_for() -> None:
    async def main() -> None:
        for listen, insecure in (("127.0.0.1:0", False), ("0.0.0.0:0", True)):
            front = await Listener.open(listen, insecure=insecure)
            await front.close()

    asyncio.run(main())


@pytest.mark.parametrize("reflect", [True, False])
def test_services_are_described_where_that_was_asked_for(reflect: bool) -> None:
    async def main() -> set[str]:
        front = await Listener.open("127.0.0.1:0", reflect=reflect)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            try:
                call = stub.ServerReflectionInfo(iter([request]), timeout=SECONDS)
                answers = [answer async for answer in call]
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNIMPLEMENTED
                answers = []
        await front.close()
        return {each.name for a in answers for each in a.list_services_response.service}

    described = asyncio.run(main())
    expected = {"hetero_splitee.v1.HeteroSplit", "grpc.health.v1.Health"} if reflect else set()
    assert {name for name in described if "Reflection" not in name} == expected


def test_every_refusal_is_told() -> None:
    refused: list[HeteroError] = []

    def body(server: InProcessServer) -> None:
        calls = server.calls()
        with closing(calls):
            assert server.outcome(calls, "PullState") is UnknownSession

    with_server(body, on_refusal=refused.append)
    assert [type(error) for error in refused] == [UnknownSession]


def test_health_is_answered_before_there_is_anything_to_serve() -> None:
    async def main() -> int:
        front = await Listener.open("127.0.0.1:0")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        await front.close()
        return int(answer.status)

    assert asyncio.run(main()) == health_pb2.HealthCheckResponse.NOT_SERVING
