"""Figures as they are drawn."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from hetero_lab.report import drawing
from hetero_lab.report.charts import Chart, Line, Panel, Role, Scale
from hetero_lab.report.making import run_charts
from support.sample_runs import CURVE, measured, participant, run_of


def lines_called(*names: str) -> tuple[Line, ...]:
    return tuple(
        Line(name, look, Role.MEASURED, (1, 2, 3), (10 + look, 20, 30), (1, 2, 3))
        for look, name in enumerate(names)
    )


def a_chart(*panels: Panel, looks: int = 1, scale: Scale = Scale.LINEAR) -> Chart:
    return Chart("a", "A", "It shows.", "rounds", "test accuracy (%)", panels, looks, scale)


CHARTS = run_charts(
    run_of(
        *(
            participant(
                f"c{cut}",
                cut,
                *(measured(r, sent=10 ** (r + 5 + cut), curve=CURVE) for r in (0, 1)),
            )
            for cut in (1, 2)
        )
    )
)


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_a_figure_has_the_lines_and_labels_of_its_chart(chart: Chart) -> None:
    with drawing.figure(chart) as figure:
        assert len(figure.axes) == len(chart.panels)
        for axes, panel in zip(figure.axes, chart.panels, strict=True):
            assert axes.get_title(loc="left") == panel.title
            drawn = [(line.get_label(), np.size(line.get_xdata())) for line in axes.lines]
            assert drawn == [(line.label, len(line.x)) for line in panel.lines]
        assert {axes.get_xlabel() for axes in figure.axes} - {""} == {chart.x_label}
        assert {axes.get_ylabel() for axes in figure.axes} - {""} == {chart.y_label}
        (legend,) = figure.legends
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts == list(dict.fromkeys(line.label for p in chart.panels for line in p.lines))


@pytest.mark.parametrize("scale", Scale)
@pytest.mark.parametrize("count", [1, 2, 4, 5, 10])
def test_panels_of_any_number_have_their_axes_labelled(count: int, scale: Scale) -> None:
    chart = a_chart(*(Panel(str(n), lines_called("x")) for n in range(count)), scale=scale)
    with drawing.figure(chart) as figure:
        assert [axes.get_title(loc="left") for axes in figure.axes] == [*map(str, range(count))]
        columns = min(count, 2 if count <= 4 else 3)
        labelled = [bool(axes.get_xlabel()) for axes in figure.axes]
        assert labelled == [n >= count - columns for n in range(count)]


@pytest.mark.parametrize("count", [3, 7, 9, 40])
def test_lines_are_told_apart_by_more_than_color(count: int) -> None:
    chart = a_chart(Panel("p", lines_called(*map(str, range(count)))), looks=count)
    with drawing.figure(chart) as figure:
        (axes,) = figure.axes
        looks = {(str(line.get_color()), str(line.get_marker())) for line in axes.lines}
        assert len(looks) == count
        assert len({marker for _, marker in looks}) == min(count, 9)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("$x", "$x"),
        ("$\\frac{$", "$\\frac{$"),
        ("_hidden", " _hidden"),
        ("设备-1", "\ufffd\ufffd-1"),
        ("a\nb\x00", "a\ufffdb\ufffd"),
        ("\ud800", "\ufffd"),
        ("x" * 100, "x" * 39 + "…"),
        ("<script>", "<script>"),
        ("", ""),
    ],
)
def test_names_are_drawn_as_they_are_or_as_the_font_can(name: str, shown: str) -> None:
    """Warnings are failures here, such as those of missing letters."""
    chart = a_chart(Panel(name, lines_called(name, "other")), looks=2)
    with drawing.figure(chart) as figure:
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert texts == ([shown, "other"] if name else ["other"])
    assert b"<script" not in drawing.svg(chart)
    assert drawing.png(chart).startswith(b"\x89PNG")


def test_files_are_the_same_each_time_and_large_enough_to_print() -> None:
    for make in (drawing.png, drawing.svg):
        assert make(CHARTS[0]) == make(dataclasses.replace(CHARTS[0]))
    image = Image.open(io.BytesIO(drawing.png(CHARTS[0])))
    assert image.width == 1400
    assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)


def test_drawing_leaves_the_settings_of_others_alone() -> None:
    import matplotlib

    matplotlib.rcParams["lines.linewidth"] = 7
    try:
        before = dict(matplotlib.rcParams)
        first = drawing.png(CHARTS[0])
        assert dict(matplotlib.rcParams) == before
    finally:
        matplotlib.rcParams["lines.linewidth"] = matplotlib.rcParamsDefault["lines.linewidth"]
    assert drawing.png(CHARTS[0]) == first, "and is not changed by them"
