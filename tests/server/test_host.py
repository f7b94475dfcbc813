"""The process around an engine, within this one."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from functools import partial

import pytest

from hetero_client.link.transport import ServerLink, ServerStatus
from hetero_common.compute.device import Compute
from hetero_common.errors import ServerUnreachable, SettingsError
from hetero_common.records import logs
from hetero_common.settings import load
from hetero_server.build import build_engine
from hetero_server.host import Host
from hetero_server.learning.initial_model import InitialModel
from hetero_server.run.engine import Engine
from hetero_server.settings import ServerSettings

SECONDS = 60.0
"""Guard against an answer that never comes."""
SMALL = (
    *("--model", "tinycnn", "--width", "4", "--image-size", "8", "--normalization", "digits"),
    *("--listen", "127.0.0.1:0", "--strategy", "sequential"),
)

pytestmark = pytest.mark.usefixtures("unset_settings")


@pytest.fixture(autouse=True)
def nobody_speaks_afterwards(request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: logs.speak_as("", 0))


def settings(*flags: str) -> ServerSettings:
    return load(ServerSettings, [*SMALL, *flags], "hetero-server")


def engine_of(host: Host, chosen: ServerSettings) -> Engine:
    initial = InitialModel(chosen.plan())
    return build_engine(initial, chosen, Compute(), clients=1, observe=host.monitor.observe)


def status_at(address: str) -> ServerStatus:
    with ServerLink(address, connect_timeout=SECONDS) as link:
        return link.status_now()


def test_it_listens_first_and_serves_when_there_is_an_engine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def main() -> str:
        chosen = settings("--http", "off")
        async with Host.open(chosen) as host:
            with pytest.raises(ServerUnreachable, match="still loading"):
                await asyncio.to_thread(status_at, host.address)
            assert capsys.readouterr().out == ""
            engine = await host.compute.run(partial(engine_of, host, chosen))
            async with host.training(engine, "run-1"):
                status = await asyncio.to_thread(status_at, host.address)
            assert (status.run.run_id, status.run.phase) == ("run-1", "WAITING")
            assert status.plan == chosen.plan()
            return host.address

    address = asyncio.run(asyncio.wait_for(main(), SECONDS))
    assert capsys.readouterr().out == f"listening on {address}\n"
    assert not address.endswith(":0"), "the port that was found free"
    with pytest.raises(ServerUnreachable):
        status_at(address)


def test_the_page_is_there_as_long_as_the_server() -> None:
    def looks(url: str) -> int:
        try:
            with urllib.request.urlopen(url, timeout=SECONDS) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    async def main() -> str:
        async with Host.open(settings("--http", "127.0.0.1:0")) as host:
            url = host._page
            assert url is not None
            assert await asyncio.to_thread(looks, f"{url}metrics") == 200
            assert await asyncio.to_thread(looks, f"{url}healthz") == 503, "nothing is served"
            return url

    url = asyncio.run(asyncio.wait_for(main(), SECONDS))
    with pytest.raises(urllib.error.URLError):
        looks(url)


def test_an_address_that_is_taken_is_refused_and_nothing_stays_open() -> None:
    async def main() -> None:
        async with Host.open(settings("--http", "off")) as host:
            taken = settings("--http", "off", "--listen", host.address)
            with pytest.raises(SettingsError, match="cannot listen on"):
                async with Host.open(taken):
                    pass

    asyncio.run(asyncio.wait_for(main(), SECONDS))


def test_a_page_that_may_not_be_there_closes_the_front_again() -> None:
    async def main() -> None:
        page = settings("--http", "0.0.0.0:0")
        with pytest.raises(SettingsError, match="--http-tokens"):
            async with Host.open(page):
                pass

    asyncio.run(asyncio.wait_for(main(), SECONDS))


def test_events_of_the_run_and_refusals_reach_the_monitor() -> None:
    async def main() -> None:
        chosen = settings("--http", "off")
        async with Host.open(chosen) as host:
            engine = await host.compute.run(partial(engine_of, host, chosen))
            async with host.training(engine, "run-1"):
                with ServerLink(host.address, connect_timeout=SECONDS) as link:
                    await asyncio.to_thread(link.status)
                    await asyncio.to_thread(link.register, "a", 2, 64, engine.initial.fingerprint)
            assert [event.kind for event in host.monitor.chronicle.happenings] == ["joined"]
            status = host.monitor.status()
            assert status is not None
            assert [member.client_id for member in status.members] == ["a"]

    asyncio.run(asyncio.wait_for(main(), SECONDS))
