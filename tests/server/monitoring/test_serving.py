from __future__ import annotations

import asyncio
import socket

import httpx2
import pytest

from hetero_common.errors import SettingsError
from hetero_server.monitoring.monitor import Monitor
from hetero_server.monitoring.serving import page


def test_where_others_can_reach_it_it_asks_for_a_token_or_a_word() -> None:
    with pytest.raises(SettingsError, match="--http-tokens"):
        asyncio.run(look("0.0.0.0:0"))


def test_a_port_that_was_asked_for_and_is_taken_is_an_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(SettingsError, match="another --http"),
    ):
        asyncio.run(look(f"127.0.0.1:{taken.getsockname()[1]}"))


def test_by_default_another_port_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        usual = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr("hetero_server.monitoring.serving._USUAL", usual)
        url = asyncio.run(look("auto"))
    assert url is not None
    assert usual not in url


def test_off_is_off() -> None:
    assert asyncio.run(look("off")) is None


async def look(http: str) -> str | None:
    """Open the page, look at it, and close it again."""
    async with page(Monitor(), http, is_well=lambda: True) as url:
        if url is not None:
            async with httpx2.AsyncClient() as visitor:
                assert (await visitor.get(f"{url}metrics")).status_code == 200
        return url
