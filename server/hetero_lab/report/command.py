"""hetero-report: what run directories say of their runs.

hetero-report runs/server-... --output report
hetero-report runs/sim-a runs/sim-b runs/sim-c --output comparison
hetero-report --audit runs/server-...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic_settings import CliPositionalArg

from hetero_common.command import run_command
from hetero_common.errors import SettingsError
from hetero_common.records.rundir import write_whole
from hetero_common.settings import Settings
from hetero_lab.reading.grouping import group
from hetero_lab.reading.reader import read_run
from hetero_lab.report.audit_table import audit_runs
from hetero_lab.report.making import PAGE_FILE, compare, report_on


class ReportSettings(Settings, frozen=True):
    """Say what run directories hold: as a page with figures, or whether all steps were applied."""

    runs: CliPositionalArg[tuple[Path, ...]] = ()
    """Run directories, of runs that are finished, left off or still going on; several are compared.
    With --audit, of servers."""
    output: Path | None = None
    """Directory for the page, report.html, and its figures as PNG files; by default report in the
    run directory. A comparison needs one."""
    labels: str | None = None
    """Names of the runs in a comparison, separated by commas; runs of one name are put together. By
    default the method, and what it takes to tell runs apart that differ in more than their seed."""
    audit: bool = False
    """Prove that each step of each client reached the server model exactly once, in order; exit
    code 1 where one did not."""


def main(flags: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run_command("hetero-report", ReportSettings, _run, flags)


def _run(settings: ReportSettings) -> None:
    if not settings.runs:
        raise SettingsError("no run to report on: name run directories")
    if settings.audit:
        if settings.output is not None or settings.labels:
            raise SettingsError("--audit makes no page: leave --output and --labels out")
        audit_runs(settings.runs)
    elif settings.labels and len(settings.runs) == 1:
        raise SettingsError("--labels names the runs of a comparison: name several runs")
    else:
        _report(settings)


def _report(settings: ReportSettings) -> None:
    """Everything is read and drawn before the first file is written."""
    output = settings.output or _default_output(settings.runs)
    labels = [label.strip() for label in settings.labels.split(",")] if settings.labels else []
    runs = [read_run(directory) for directory in settings.runs]
    files = report_on(runs[0]) if len(runs) == 1 else compare(group(runs, labels))
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_whole(output / name, data)
    except OSError as error:
        raise SettingsError(f"--output {output} cannot be written: {error.strerror}") from None
    print(f"the report is {output / PAGE_FILE}")


def _default_output(runs: Sequence[Path]) -> Path:
    if len(runs) > 1:
        raise SettingsError("a comparison needs a directory of its own: give --output")
    return runs[0] / "report"


if __name__ == "__main__":
    sys.exit(main())
