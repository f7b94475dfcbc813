"""A report as one page of HTML that needs nothing else.

Whatever comes from a run is escaped where it enters, in `_text`: clients choose their own ids.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence

from hetero_lab.reading.facts import common, facts, title
from hetero_lab.reading.grouping import Group
from hetero_lab.reading.run import Run
from hetero_lab.report import tables
from hetero_lab.report.charts import Chart
from hetero_lab.report.tables import Table
from hetero_lab.report.template import FIGURE, PAGE, SECTION, TABLE

Figures = Sequence[tuple[Chart, bytes]]
"""Charts, each with its SVG file."""


def run_page(run: Run, figures: Figures) -> bytes:
    """The page of one run."""
    plan = run.plan
    heading = f"{title(run.method)}: {plan.model}, width {plan.width}, seed {plan.seed}"
    return _page(
        heading,
        [
            _section("What was run", _facts({"Run": run.name} | facts(run)), *_notes(run)),
            *_figure_sections(figures),
            *_table_sections([tables.cuts_table(run), tables.clients_table(run)]),
            *_table_sections([tables.classes_table(run), tables.incidents_table(run)]),
        ],
    )


def comparison_page(groups: Sequence[Group], figures: Figures) -> bytes:
    """The page of several runs."""
    runs = [run for group in groups for run in group.runs]
    return _page(
        f"Comparison of {len(runs)} runs: {', '.join(group.label for group in groups)}",
        [
            *_table_sections([tables.results_table(groups)]),
            *_figure_sections(figures),
            *_table_sections(
                [tables.compared_cuts_table(groups), tables.compared_classes_table(groups)]
            ),
            _section("What was run", _facts(common(runs))),
            *_table_sections([tables.differences_table(groups), tables.runs_table(groups)]),
            _section("Each run", *(_details(run) for run in runs)),
        ],
    )


def _page(heading: str, sections: Iterable[str]) -> bytes:
    page = PAGE.substitute(title=_text(heading), body="\n".join(sections))
    return page.encode("utf-8", errors="replace")  # JSON may hold half a character


def _section(heading: str, *parts: str) -> str:
    return SECTION.substitute(title=_text(heading), body="\n".join(parts))


def _figure_sections(figures: Figures) -> list[str]:
    return [_section(chart.title, _figure(chart, data)) for chart, data in figures]


def _table_sections(shown: Iterable[Table | None]) -> list[str]:
    return [_section(table.title, _table(table)) for table in shown if table is not None]


def _details(run: Run) -> str:
    shown = [tables.clients_table(run), tables.classes_table(run), tables.incidents_table(run)]
    parts = [
        f"<h3>{_text(table.title)}</h3>\n{_table(table)}" for table in shown if table is not None
    ]
    summary = f"<summary>{_text(f'{run.name}: {run.method}, seed {run.plan.seed}')}</summary>"
    return "\n".join(["<details>", summary, *_notes(run), *parts, "</details>"])


def _notes(run: Run) -> list[str]:
    return [f"<p>{_text(note)}</p>" for note in run.notes]


def _figure(chart: Chart, data: bytes) -> str:
    titles = ", ".join(panel.title for panel in chart.panels)
    return FIGURE.substitute(
        alt=_text(f"{chart.title}: {chart.y_label} against {chart.x_label}. Panels: {titles}."),
        data=base64.b64encode(data).decode("ascii"),
        caption=_text(chart.caption),
    )


def _facts(told: Mapping[str, str]) -> str:
    rows = [
        f'<tr><th class="text" scope="row">{_text(name)}</th>'
        f'<td class="text">{_text(text)}</td></tr>'
        for name, text in told.items()
    ]
    return TABLE.substitute(kind="facts", head="", rows="\n".join(rows), caption="")


def _table(table: Table) -> str:
    headings = [
        f'<th{_kind(table, column)} scope="col">{_text(heading)}</th>'
        for column, heading in enumerate(table.headings)
    ]
    rows = [
        "".join(f"<td{_kind(table, column)}>{_text(cell)}</td>" for column, cell in enumerate(row))
        for row in table.rows
    ]
    return TABLE.substitute(
        kind="numbers",
        head=f"<thead><tr>{''.join(headings)}</tr></thead>\n",
        rows="\n".join(f"<tr>{row}</tr>" for row in rows),
        caption=f'\n<p class="caption">{_text(table.caption)}</p>' if table.caption else "",
    )


def _kind(table: Table, column: int) -> str:
    return ' class="text"' if column < table.texts else ""


def _text(value: str) -> str:
    """Text as HTML, without characters that steer."""
    return html.escape("".join(c if c.isprintable() else "\ufffd" for c in value))
