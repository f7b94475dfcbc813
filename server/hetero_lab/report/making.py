"""The files of a report: the page, last, and each of its figures."""

from __future__ import annotations

from collections.abc import Sequence

from hetero_common.errors import SettingsError
from hetero_lab.reading.grouping import Group
from hetero_lab.reading.run import Run
from hetero_lab.report.charts import Chart, offload_chart, payload_chart, rounds_chart
from hetero_lab.report.page import Figures, comparison_page, run_page
from hetero_lab.report.strands import client_strands, cut_strands, group_strand, pooled, run_strand

PAGE_FILE = "report.html"

Files = dict[str, bytes]
"""Contents by names."""


def report_on(run: Run) -> Files:
    """The report on one run.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    pngs, figures = _drawn(run_charts(run))
    return pngs | {PAGE_FILE: run_page(run, figures)}


def compare(groups: Sequence[Group]) -> Files:
    """The report on several runs.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    pngs, figures = _drawn(comparison_charts(groups))
    return pngs | {PAGE_FILE: comparison_page(groups, figures)}


def run_charts(run: Run) -> list[Chart]:
    """Those that there is something to show in: by client or cut layer."""
    strands, by_cut = client_strands(run), cut_strands(run)
    offload = [pooled(s) for s in (run_strand(run), *(by_cut if len(by_cut) > 1 else ()))]
    charts = (rounds_chart(strands), payload_chart(strands), offload_chart(offload))
    return [chart for chart in charts if chart is not None]


def comparison_charts(groups: Sequence[Group]) -> list[Chart]:
    """The charts of a comparison of groups, which are told apart by their labels."""
    strands = [group_strand(group) for group in groups]
    charts = (rounds_chart(strands), payload_chart(strands), offload_chart(strands))
    return [chart for chart in charts if chart is not None]


def _drawn(charts: Sequence[Chart]) -> tuple[Files, Figures]:
    try:
        # Only here, so that no other command waits for matplotlib.
        from hetero_lab.report import drawing
    except ModuleNotFoundError as error:
        raise SettingsError(
            "figures are drawn by matplotlib: pip install hetero-splitee[report]"
        ) from error
    pngs = {f"{chart.name}.png": drawing.png(chart) for chart in charts}
    return pngs, [(chart, drawing.svg(chart)) for chart in charts]
