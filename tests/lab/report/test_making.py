from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from hetero_common.errors import SettingsError
from hetero_lab.reading.grouping import Group
from hetero_lab.reading.reader import read_run
from hetero_lab.reading.run import Run
from hetero_lab.report.making import PAGE_FILE, compare, comparison_charts, report_on, run_charts
from lab.test_simulation import SMALL
from support.sample_runs import CURVE, measured, participant, run_of

if TYPE_CHECKING:
    from conftest import Simulate


def test_the_same_run_gives_the_same_page(simulate: Simulate) -> None:
    directory = simulate(*SMALL, "--clients", "2", "--eval-every", "1")
    assert report_on(read_run(directory)) == report_on(read_run(directory))


PNG, SVG = b"\x89PNG", b"<?xml"


def a_run(seed: int = 0) -> Run:
    client = participant("a", 3, *(measured(r, sent=10**6, curve=CURVE) for r in (0, 1)))
    return run_of(client, seed=seed)


@pytest.mark.parametrize("is_compared", [False, True])
def test_a_report_is_a_page_and_a_picture_of_each_figure(is_compared: bool) -> None:
    run = a_run()
    files = compare([Group("x", (run, a_run(1)))]) if is_compared else report_on(run)
    assert list(files)[-1] == PAGE_FILE, "the page comes last: it stands for a whole report"
    pictures = {name: data for name, data in files.items() if name != PAGE_FILE}
    charts = comparison_charts([Group("x", (run,))]) if is_compared else run_charts(run)
    assert set(pictures) == {f"{chart.name}.png" for chart in charts}
    assert len(charts) == 3
    assert all(data.startswith(PNG) for data in pictures.values())
    assert files[PAGE_FILE].startswith(b"<!DOCTYPE html>")


def test_a_report_has_only_figures_that_there_is_something_to_show_in() -> None:
    bare = run_of(participant("a", 3, measured(0), measured(1)))
    assert sorted(report_on(bare)) == ["accuracy-over-rounds.png", PAGE_FILE]


def test_without_matplotlib_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hetero_lab.report.drawing", None)
    monkeypatch.delattr("hetero_lab.report.drawing")
    with pytest.raises(SettingsError, match=r"pip install hetero-splitee\[report\]"):
        report_on(a_run())
