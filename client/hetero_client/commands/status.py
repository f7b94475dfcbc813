"""hetero-status: how the run of a server stands, and who takes part.

hetero-status --server host:50051
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from hetero_client.link.transport import ServerLink
from hetero_client.settings import StatusSettings
from hetero_common.agreement.status import MemberStatus, RunStatus
from hetero_common.command import run_command, wide_console

_NONE = "-"


def main(flags: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run_command("hetero-status", StatusSettings, _run, flags)


def _run(settings: StatusSettings) -> None:
    with ServerLink(
        settings.server,
        certs=settings.certs,
        token=settings.resolved_token(),
        insecure=settings.insecure,
    ) as link:
        run = link.status_now().run
    if settings.output == "json":
        print(json.dumps(asdict(run)))
        return
    console = wide_console()
    console.print(Text(_headline(run)), soft_wrap=True)
    if run.members:
        console.print(_table(run.members))


def _headline(run: RunStatus) -> str:
    parts = [f"{run.run_id}: {run.model}, {run.strategy}, {run.phase.lower()}"]
    if run.phase != "SERVING":
        parts.append(f"round {min(run.round + 1, run.rounds)} of {run.rounds}")
    if run.seconds_left is not None:
        parts.append(f"{_duration(run.seconds_left)} left")
    if run.saved_seconds is not None:
        parts.append(f"saved {_duration(run.saved_seconds)} ago")
    return ", ".join(parts)


def _table(members: Sequence[MemberStatus]) -> Table:
    table = Table()
    table.add_column("client", overflow="fold")
    table.add_column("cut", justify="right")
    table.add_column("state")
    for heading in ("images", "trained", "images/s", "MB in", "MB out", "last seen"):
        table.add_column(heading, justify="right")
    for heading in ("exit", "server", "at threshold", "offloaded"):
        table.add_column(heading, justify="right")
    for member in members:
        rate, silent = member.samples_per_second, member.silent_seconds
        table.add_row(
            Text(member.client_id),
            str(member.cut_layer),
            member.state.lower(),
            f"{member.shard_size:,}",
            f"{member.samples:,}",
            _NONE if rate is None else f"{rate:.1f}",
            f"{member.bytes_received / 1e6:,.1f}",
            f"{member.bytes_sent / 1e6:,.1f}",
            _NONE if silent is None else f"{_duration(silent)} ago",
            _share(member.exit_accuracy),
            _share(member.server_accuracy),
            _share(member.threshold_accuracy),
            _share(member.offload_share),
        )
    return table


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1%}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


if __name__ == "__main__":
    sys.exit(main())
