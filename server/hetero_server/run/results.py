"""The table a run ends with."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from hetero_server.run.member import Member


def results_table(members: Iterable[Member]) -> Table:
    """One row per client: the last accuracies and what it sent."""
    table = Table(title="Results on the test images")
    table.add_column("client")
    for heading in ("cut", "images", "exit", "server", "at threshold", "offloaded", "MB sent"):
        table.add_column(heading, justify="right")
    for member in sorted(members, key=lambda member: (member.cut_layer, member.client_id)):
        last = member.progress.evaluation
        accuracies = ["-"] * 4
        if last is not None:
            accuracies = [
                f"{last.exit_accuracy:.1%}",
                f"{last.server_accuracy:.1%}",
                f"{last.threshold_accuracy:.1%} ({last.threshold:g})",
                f"{last.offload_share:.1%}",
            ]
        megabytes = f"{member.traffic.bytes_received / 1e6:,.1f}"
        row = (
            member.client_id,
            str(member.cut_layer),
            str(member.identity.shard_size),
            *accuracies,
        )
        table.add_row(*row, megabytes)
    return table
