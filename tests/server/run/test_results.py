from __future__ import annotations

from rich.console import Console

from hetero_common.agreement.control import Evaluation
from hetero_server.run.member import Identity, Member
from hetero_server.run.results import results_table


def a_member(client_id: str, cut_layer: int, shard_size: int) -> Member:
    return Member(Identity(client_id, cut_layer, shard_size, steps=8), membership=0)


def rows(*members: Member) -> list[list[str]]:
    console = Console(width=140)
    with console.capture() as captured:
        console.print(results_table(members))
    lines = [line for line in captured.get().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def test_a_row_has_the_last_accuracies_and_what_was_sent() -> None:
    member = a_member("board-1", 3, 1200)
    member.traffic.bytes_received = 12_345_678
    member.progress.evaluation = Evaluation(9, 100, 0.5, 0.75, 0.4, 0.8, 0.25)
    assert rows(member) == [
        ["board-1", "3", "1200", "50.0%", "75.0%", "80.0% (0.4)", "25.0%", "12.3"]
    ]


def test_who_was_never_evaluated_has_no_accuracies() -> None:
    assert rows(a_member("board-1", 3, 50)) == [["board-1", "3", "50", "-", "-", "-", "-", "0.0"]]


def test_clients_come_by_cut_layer_and_name() -> None:
    members = [a_member("b", 4, 50), a_member("c", 3, 50), a_member("a", 4, 50)]
    assert [row[0] for row in rows(*members)] == ["c", "a", "b"]
