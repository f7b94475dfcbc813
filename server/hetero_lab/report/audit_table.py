"""hetero-report --audit: the proof that each step was applied, as a table and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hetero_common.agreement.steps import steps_to_text
from hetero_common.errors import HeteroError, SettingsError
from hetero_common.records.events import DeviceJoined, WholeRound
from hetero_common.records.history import read_history
from hetero_common.records.rundir import METRICS_FILE, read_plan
from hetero_lab.report.audit import Audit, audit


def audit_runs(runs: Sequence[Path]) -> None:
    """Print what an audit of each run has found.

    Raises:
        SettingsError: A directory holds no run of a server, or is damaged.
        HeteroError: Something is wrong with a run.
    """
    audits = [(run, _audit(run)) for run in runs]
    for run, found in audits:
        _print_audit(run, found)
    findings = sum(len(found.findings) for _, found in audits)
    if findings:
        raise HeteroError(f"audit failed: {findings} finding{'s' if findings > 1 else ''}")


def _audit(run: Path) -> Audit:
    plan = read_plan(run)
    recorded = read_history(run).whole()
    events = [each.event for each in recorded]
    if any(isinstance(event, DeviceJoined) for event in events):
        raise SettingsError(f"{run} is a client's run: name the run directory of its server")
    if any(isinstance(event, WholeRound) for event in events):
        raise SettingsError(f"{run} is a centralized run: it has no clients to look at")
    try:
        return audit(recorded, plan)
    except ValueError:
        raise SettingsError(
            f"{run / METRICS_FILE} is damaged: an event lacks what docs/runs.md says it has"
        ) from None


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
