"""The page: whole, closed in itself, and harmless whatever a run calls its clients."""

from __future__ import annotations

import base64
import dataclasses
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from hetero_lab.reading.grouping import Group
from hetero_lab.reading.reader import read_run
from hetero_lab.reading.run import Incident, Participant, Run
from hetero_lab.report.making import PAGE_FILE, compare, report_on
from lab.test_simulation import SMALL
from support.sample_runs import CURVE, measured, participant, planned, run_of

if TYPE_CHECKING:
    from conftest import Simulate

_VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """A page that was read to its end; fails where an element is not closed as it should be.

    Attributes:
        texts: Of all elements, by their tags.
        sources: What attributes refer to.
    """

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.sources: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page.decode("utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("src", "href", "srcset", "data", "action"):
                self.sources.append(str(value))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.strip())


def page_of(run: Run) -> bytes:
    return report_on(run)[PAGE_FILE]


def a_run(name: str = "c", seed: int = 0) -> Run:
    clients = [
        participant(f"{name}{cut}", cut, *(measured(r, sent=10**6, curve=CURVE) for r in (0, 1)))
        for cut in (1, 2)
    ]
    return run_of(*clients, seed=seed)


def row(page: Page, first: str) -> list[str]:
    """The cells of the row that begins with this one, of the last table that has it."""
    cells = page.texts["td"]
    start = len(cells) - 1 - cells[::-1].index(first)
    return cells[start : start + 10]


def test_a_page_is_whole_and_closed_in_itself() -> None:
    page = Page(page_of(a_run()))
    assert page.tags[:2] == ["html", "head"] and page.tags.count("figure") == 3
    assert [text for text in page.texts["h2"] if text != "Events"] == [
        "What was run",
        "Accuracy over rounds",
        "Accuracy over payload",
        "Accuracy versus offload",
        "Cut layers",
        "Clients",
    ]
    assert len(page.sources) == 3
    for source in page.sources:
        kind, _, data = source.partition(";base64,")
        assert kind == "data:image/svg+xml"
        assert base64.b64decode(data, validate=True).startswith(b"<?xml")
    assert "script" not in page.tags and "link" not in page.tags


def test_tables_hold_the_last_numbers() -> None:
    page = Page(page_of(a_run()))
    assert row(page, "c1") == [
        *("c1", "1", "50", "60.00", "80.00", "90.00", "50.00", "16", "1.00", "0.00"),
    ]
    assert row(page, "all 2 clients")[:5] == [
        *("all 2 clients", "60.00 ± 0.00", "80.00 ± 0.00", "90.00 ± 0.00", "50.00 ± 0.00"),
    ]


def test_a_comparison_has_means_and_deviations_of_its_runs() -> None:
    better = run_of(participant("c", 3, measured(0, 0.7, 0.8), measured(1, 0.8, 0.9)), seed=1)
    worse = run_of(participant("c", 3, measured(0, 0.7, 0.8), measured(1, 0.6, 0.9)), seed=2)
    files = compare([Group("mine", (better, worse)), Group("yours", (a_run(),))])
    page = Page(files[PAGE_FILE])
    assert page.texts["h2"][0] == "Results"
    cells = page.texts["td"]
    start = cells.index("mine")
    assert cells[start : start + 8] == [
        *("mine", "2", "1, 2", "70.00 ± 14.14", "90.00 ± 0.00", "–", "–", "–"),  # noqa: RUF001
    ]
    assert page.texts["h2"][5:] == ["What was run", "Differences", "Runs", "Each run"]
    assert [row(page, name)[:3] for name in ("Clients", "Cut layers")] == [
        ["Clients", "1", "2"],
        ["Cut layers", "3", "1, 2"],
    ]
    assert page.texts["summary"] == [f"runs/made-up: sequential, seed {seed}" for seed in (1, 2, 0)]


def by_class(cut: int, exit_: tuple[float | None, ...], server: tuple[float, ...]) -> Participant:
    last = dataclasses.replace(measured(0), exit_classes=exit_, server_classes=server)
    return participant(f"c{cut}", cut, last)


def test_classes_have_a_row_each() -> None:
    run = run_of(by_class(1, (0.5, None, 0.1), (0.9, 0.8, 0.7)), by_class(2, (), (0.7, 0.8, 0.7)))
    page = Page(page_of(planned(run, classes=3)))
    assert page.texts["h2"][-1] == "Classes"
    assert page.texts["th"][-3:] == ["class", "exit, cut 1 %", "server %"]
    assert page.texts["td"][-9:] == [
        *("0", "50.00", "80.00 ± 14.14"),
        *("1", "–", "80.00 ± 0.00"),  # noqa: RUF001
        *("2", "10.00", "70.00 ± 0.00"),
    ]


def test_of_many_classes_those_are_shown_that_are_known_worst() -> None:
    known = tuple(k / 100 for k in range(100))
    page = Page(page_of(planned(run_of(by_class(1, known[::-1], known)), classes=100)))
    assert page.texts["td"][-60::3] == [str(k) for k in range(20)]
    assert "Of 100 classes those 20 that the last column knows worst." in page.texts["p"][-1]


def test_a_comparison_has_the_worst_and_the_best_class_of_each_label() -> None:
    one = run_of(by_class(1, (0.5, None, 0.1), (0.9, 0.8, 0.7)))
    other = run_of(by_class(1, (0.5, None, 0.3), (0.9, 0.8, 0.3)), seed=1)
    groups = [Group("skewed", (one, other)), Group("old", (a_run(),))]
    page = Page(compare(groups)[PAGE_FILE])
    assert row(page, "20.00 ± 14.14")[:4] == [
        *("20.00 ± 14.14", "50.00 ± 0.00", "50.00 ± 28.28", "90.00 ± 0.00"),
    ]
    assert page.texts["h2"].count("Classes") == 1


HOSTILE = "<script>alert(1)</script>\"'&\x00\ud800\u202e"


def test_whatever_a_client_calls_itself_is_text() -> None:
    what = Incident(1.0, 0, HOSTILE, f"it said {HOSTILE}")
    run = dataclasses.replace(
        a_run(HOSTILE),
        name=HOSTILE,
        notes=(HOSTILE,),
        incidents=(what,),
        settings={"strategy": "sequential", "dataset": HOSTILE, "order": HOSTILE},
        versions={"torch": HOSTILE},
    )
    shown = "<script>alert(1)</script>\"'&\ufffd\ufffd\ufffd"
    for files in (report_on(run), compare([Group(HOSTILE, (run,)), Group("b", (a_run(),))])):
        assert b"<script" not in files[PAGE_FILE]
        page = Page(files[PAGE_FILE])
        assert "script" not in page.tags
        assert not any(name.startswith("on") for name in page.attributes)
        assert f"{shown}1" in page.texts["td"]
        assert all(b"<script" not in base64.b64decode(s.split(",")[1]) for s in page.sources)
    assert f"it said {shown}" in page.texts["td"]


def test_a_run_of_a_client_that_calls_itself_a_script(simulate: Simulate) -> None:
    """From its directory, as it would be."""
    directory = simulate(*SMALL, "--clients", "2", "--eval-every", "1")
    metrics = directory / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"client-2"', '"<script>alert(2)</script>"'))
    page = page_of(read_run(directory))
    assert b"<script" not in page
    assert "<script>alert(2)</script>" in Page(page).texts["td"]


def test_events_are_told_up_to_a_number() -> None:
    many = tuple(Incident(n, n, "c1", f"event {n}") for n in range(250))
    page = Page(page_of(dataclasses.replace(a_run(), incidents=many)))
    shown = [text for text in page.texts["td"] if text.startswith("event ")]
    assert (shown[0], len(shown)) == ("event 0", 200)
    assert "50 more are in metrics.jsonl." in page.texts["p"]


def test_a_page_with_an_element_left_open_is_seen() -> None:
    with pytest.raises(AssertionError):
        Page(b"<table><tr><td>1</tr></table>")
