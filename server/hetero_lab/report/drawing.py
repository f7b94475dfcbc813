"""Charts as figures, for the screen and for print; the one place that knows matplotlib.

Colors are those of Okabe and Ito, which people with any color vision tell apart, or viridis where
lines are many; each line has a marker and dashes of its own as well, for print without color.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from hetero_lab.report.charts import Chart, Line, Panel, Role, Scale

_OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
    (0, (7, 1, 1, 1, 1, 1)),
)
_GRAY, _DARK = "#767676", "#1a1a1a"
_MARKED = 12
"""Markers on a line, about."""
_LONGEST_LABEL = 40
_WIDTH = 7.0  # inches, both columns of a paper
_LETTERS_PER_INCH, _HANDLE_LETTERS = 14, 8
"""Of a legend: how many letters fit, and how many the piece of line beside a label takes."""

_STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are the same everywhere
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "text.color": _DARK,
    "axes.labelcolor": _DARK,
    "axes.edgecolor": _DARK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "text.parse_math": False,  # a client may be called $x
    "svg.hashsalt": "hetero-report",  # else the same figure has other ids each time
    "savefig.dpi": 200,
}


def png(chart: Chart) -> bytes:
    """The figure as a PNG file."""
    return _saved(chart, "png", {"Software": None})


def svg(chart: Chart) -> bytes:
    """The figure as a SVG file, its text as shapes."""
    return _saved(chart, "svg", {"Date": None, "Creator": None})


@contextmanager
def figure(chart: Chart) -> Iterator[Figure]:
    """The figure; only within the block it can be saved as it should look."""
    with matplotlib.style.context(dict(_STYLE), after_reset=True):
        yield _draw(chart)


def _saved(chart: Chart, kind: str, metadata: Mapping[str, None]) -> bytes:
    data = io.BytesIO()
    with figure(chart) as drawn:
        drawn.savefig(data, format=kind, metadata=dict(metadata))
    return data.getvalue()


def _draw(chart: Chart) -> Figure:
    columns = min(len(chart.panels), 2 if len(chart.panels) <= 4 else 3)
    rows = math.ceil(len(chart.panels) / columns)
    height = 2.7 if rows == 1 else 2.1 * rows
    drawn = Figure(figsize=(_WIDTH, height + 0.6), layout="constrained")
    grid = drawn.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, panel in itertools.zip_longest(grid.flat, chart.panels):
        if panel is None:
            axes.remove()
        else:
            _draw_panel(axes, panel, chart)
    for number, axes in enumerate(drawn.axes):
        if number + columns >= len(chart.panels):  # nothing is below
            axes.set_xlabel(chart.x_label)
        if number % columns == 0:
            axes.set_ylabel(chart.y_label)
    _add_legend(drawn)
    return drawn


def _draw_panel(axes: Axes, panel: Panel, chart: Chart) -> None:
    axes.set_title(_printable(panel.title), loc="left")
    axes.tick_params(labelbottom=True, labelleft=True)
    if chart.x_scale is Scale.WHOLE:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    elif chart.x_scale is Scale.LOGARITHMIC:
        _scale_logarithmically(axes, panel)
    for line in panel.lines:
        look = _look(line, chart.looks)
        if line.deviation is not None:
            low = [y - d for y, d in zip(line.y, line.deviation, strict=True)]
            high = [y + d for y, d in zip(line.y, line.deviation, strict=True)]
            axes.fill_between(line.x, low, high, color=look["color"], alpha=0.15, linewidth=0)
        axes.plot(line.x, line.y, label=_printable(line.label), **look)
    axes.margins(x=0.03)


def _scale_logarithmically(axes: Axes, panel: Panel) -> None:
    """Scale an axis by powers of ten, with ticks at 2 and 5 as well where there is room."""
    x = [value for line in panel.lines for value in line.x]
    steps = (1, 2, 5) if max(x) < 1000 * min(x) else (1,)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=15))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _look(line: Line, looks: int) -> dict[str, Any]:
    match line.role:
        case Role.RANDOM:
            return {"color": _GRAY, "linestyle": "--", "linewidth": 1.2}
        case Role.ORACLE:
            return {"color": "black", "linestyle": ":", "linewidth": 1.4}
        case Role.POINT:
            edge = {"markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 4}
            return {"color": _OKABE_ITO[1], "linestyle": "", "marker": "D", "markersize": 7} | edge
        case Role.REFERENCE:
            return {"color": _color(line.look, looks), "linestyle": _dashes(line.look)}
    every = max(1, len(line.x) // _MARKED)
    # Markers of neighboring lines do not hide each other.
    shifted = (line.look * every // max(1, looks), every)
    return {
        "color": _color(line.look, looks),
        "linestyle": _dashes(line.look),
        "marker": _MARKERS[line.look % len(_MARKERS)],
        "markevery": shifted if every > 1 else every,
        "markeredgecolor": "white",
        "markeredgewidth": 0.5,
    }


def _color(look: int, looks: int) -> Any:
    if looks <= len(_OKABE_ITO):
        return _OKABE_ITO[look]
    return matplotlib.colormaps["viridis"](0.9 * look / (looks - 1))


def _dashes(look: int) -> Any:
    return _DASHES[look % len(_DASHES)]


def _add_legend(drawn: Figure) -> None:
    """One for all panels, each label once."""
    handles: dict[str, Any] = {}
    for axes in drawn.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    room = drawn.get_figwidth() * _LETTERS_PER_INCH
    widths = [len(label) + _HANDLE_LETTERS for label in handles]
    fitting = len(widths) if sum(widths) <= room else max(1, int(room // max(widths)))
    drawn.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=fitting,
        handlelength=3.2,
    )


def _printable(text: str) -> str:
    """Text as the font can show it: names of clients and labels are anybody's."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    shown = "".join(
        c if c.isprintable() and font.get_char_index(ord(c)) else "\ufffd" for c in text
    )
    if len(shown) > _LONGEST_LABEL:
        shown = shown[: _LONGEST_LABEL - 1] + "…"
    return f" {shown}" if shown.startswith("_") else shown  # which legends leave out
