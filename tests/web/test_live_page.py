"""The page in a real browser, of a real server that trains with real clients."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from support.browser_page import LiveRun

pytestmark = pytest.mark.web

_CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "chromium"
_LONG_MS = 60_000
_PICTURES = os.environ.get("PICTURES")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # In a container, and as root, Chromium's own sandbox has no place.
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def a_page(browser: Browser, live_run: LiveRun, scheme: str = "light", width: int = 1200) -> Page:
    """The page, opened, without a complaint of the browser's."""
    page = browser.new_page(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": width, "height": 900},
    )
    page.on("pageerror", lambda error: pytest.fail(f"the page has thrown {error}"))
    page.goto(live_run.url)
    return page


def row(page: Page, client: str) -> Locator:
    return page.locator(f"#clients tr[data-client='{client}']")


def fact(page: Page, name: str) -> Locator:
    return page.locator(f"dd[data-fact='{name}']")


def picture(page: Page, name: str) -> None:
    if _PICTURES is not None:
        page.screenshot(path=Path(_PICTURES) / f"{name}.png", full_page=True)


def test_a_run_is_followed_while_it_trains(browser: Browser, live_run: LiveRun) -> None:
    page = a_page(browser, live_run)
    for client, cut in (("board-1", "2"), ("board-2", "4")):
        expect(row(page, client)).to_contain_text("training", timeout=_LONG_MS)
        expect(row(page, client).locator("[data-name='cut layer']")).to_have_text(cut)
    expect(fact(page, "clients here")).to_have_text("2 of 2")
    expect(page.locator("#accuracy canvas")).to_be_visible(timeout=_LONG_MS)
    expect(page.locator("#loss canvas")).to_be_visible()
    expect(page.locator("#accuracy .u-legend")).to_contain_text("exit, cut 4")
    expect(page.locator("#accuracy .u-legend .u-value").nth(1)).to_have_text(re.compile(r"\d"))
    expect(page.locator("#accuracy")).to_have_attribute(
        "data-points", re.compile("[2-9]"), timeout=_LONG_MS
    )
    expect(page.locator("#events li[data-kind='joined']")).to_have_count(2)
    before = fact(page, "round").inner_text()
    expect(fact(page, "round")).not_to_have_text(before, timeout=_LONG_MS)
    expect(page.locator("#lost")).to_be_hidden()
    picture(page, "page-light")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(browser: Browser, live_run: LiveRun, scheme: str) -> None:
    page = a_page(browser, live_run, scheme)
    expect(row(page, "board-1")).to_be_visible(timeout=_LONG_MS)
    for selector in ("h2", "dt", "dd", "#clients td", "#clients th", "#about"):
        assert page.locator(selector).first.evaluate(_CONTRAST) >= 4.5, selector
    picture(page, f"page-{scheme}")
    page.close()


def test_a_phone_is_wide_enough(browser: Browser, live_run: LiveRun) -> None:
    page = a_page(browser, live_run, width=360)
    expect(row(page, "board-1")).to_be_visible(timeout=_LONG_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    picture(page, "page-phone")
    page.close()


def test_a_client_that_is_killed_is_shown_as_gone(browser: Browser, live_run: LiveRun) -> None:
    page = a_page(browser, live_run)
    expect(row(page, "board-2")).to_contain_text("training", timeout=_LONG_MS)
    live_run.clients["board-2"].kill()
    expect(row(page, "board-2")).to_contain_text("connection lost", timeout=_LONG_MS)
    expect(fact(page, "clients here")).to_have_text("1 of 2")
    expect(page.locator("#events")).to_contain_text("board-2 lost its connection")
    page.close()


def test_a_server_that_is_gone_is_told_plainly(browser: Browser, live_run: LiveRun) -> None:
    """The last test: there is no server after it."""
    page = a_page(browser, live_run)
    expect(row(page, "board-1")).to_be_visible(timeout=_LONG_MS)
    live_run.server.kill()
    expect(page.locator("#lost")).to_be_visible(timeout=_LONG_MS)
    expect(page.locator("#lost")).to_contain_text("has not answered since")
    expect(row(page, "board-1")).to_be_visible()
    picture(page, "page-lost")
    page.close()


_CONTRAST = """element => {
  const light = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(Number).map(c => c / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = at => getComputedStyle(at).backgroundColor;
  let ground = element;
  while (behind(ground) === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
  const two = [getComputedStyle(element).color, behind(ground)].map(light);
  return (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05);
}"""
"""Of an element's text to what is behind it, as WCAG 2 has it."""
