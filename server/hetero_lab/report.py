"""hetero-report: what run directories say of their runs.

hetero-report --audit runs/server-...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_settings import CliPositionalArg
from rich.console import Console
from rich.table import Table

from hetero_common.audit import Audit, audit
from hetero_common.command import run_command
from hetero_common.errors import HeteroError, SettingsError
from hetero_common.rundir import METRICS_FILE, read_plan
from hetero_common.settings import Settings
from hetero_common.steps import steps_to_text


class ReportSettings(Settings, frozen=True):
    """Say what run directories hold."""

    runs: CliPositionalArg[tuple[Path, ...]] = ()
    """Run directories of servers: of runs that are finished, left off or still going on."""
    audit: bool = False
    """Prove that each step of each client reached the server model exactly once, in order; exit
    code 1 where one did not."""


def main(flags: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run_command("hetero-report", ReportSettings, _run, flags)


def _run(settings: ReportSettings) -> None:
    if not settings.runs:
        raise SettingsError("no run to report on: name the run directory of a server")
    if not settings.audit:
        raise SettingsError("nothing to report: give --audit")
    audits = [(run, _audit(run)) for run in settings.runs]
    for run, found in audits:
        _print_audit(run, found)
    findings = sum(len(found.findings) for _, found in audits)
    if findings:
        raise HeteroError(f"audit failed: {findings} finding{'s' if findings > 1 else ''}")


def _audit(run: Path) -> Audit:
    plan = read_plan(run)
    events = read_history(run)
    if any(event.get("event") == "joined" and "run" in event for event in events):
        raise SettingsError(f"{run} is a client's run: name the run directory of its server")
    if any(event.get("event") == "round" and "client" not in event for event in events):
        raise SettingsError(f"{run} is a centralized run: it has no clients to look at")
    try:
        return audit(events, plan)
    except (ValueError, KeyError, TypeError):
        raise SettingsError(
            f"{run / METRICS_FILE} is damaged: an event lacks what docs/runs.md says it has"
        ) from None


def read_history(run: Path) -> list[dict[str, Any]]:
    """All that a run has recorded; only what a kill cut short is left out.

    Raises:
        SettingsError: There is nothing, or a line was changed after it was written.
    """
    path = run / METRICS_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{path} can not be read: name the run directory of a server") from None
    lines = text.split("\n")  # the last one is empty, or cut short
    events: list[dict[str, Any]] = []
    torn = None
    for number, line in enumerate(lines[:-1], start=1):
        event = _event(line)
        # A process that takes up the directory begins a new line behind one that was cut short.
        if torn is not None and (event is None or event["event"] != "started"):
            break
        if event is None:
            torn = number
        else:
            torn = None
            events.append(event)
    if torn is not None:
        raise SettingsError(f"line {torn} of {path} is damaged: nothing can be proven from it")
    return events


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _print_audit(run: Path, found: Audit) -> None:
    table = Table(title=f"Audit of {run}")
    table.add_column("client")
    for heading in ("rounds", "steps applied", "released in"):
        table.add_column(heading, justify="right")
    for client in found.clients:
        released = steps_to_text(client.released) or "-"
        table.add_row(client.client, str(client.rounds), f"{client.steps:,}", released)
    Console().print(table)
    for finding in found.findings:
        print(finding)
    if not found.findings:
        steps = sum(client.steps for client in found.clients)
        state = "finished" if found.is_finished else "not finished yet"
        print(
            f"audit passed: {len(found.clients)} clients, {found.rounds} rounds, {steps} steps, "
            f"each applied once and in order; resumed {found.resumed} times, {state}"
        )


if __name__ == "__main__":
    sys.exit(main())
