from __future__ import annotations

from rich.console import Console

from hetero_common.agreement.control import Evaluation
from hetero_server.run.member import Member
from hetero_server.run.results import results_table


def rows(*members: Member) -> list[list[str]]:
    console = Console(width=140)
    with console.capture() as captured:
        console.print(results_table(members))
    lines = [line for line in captured.get().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def test_a_row_has_the_last_accuracies_and_what_was_sent() -> None:
    member = Member("board-1", 3, 1200, 8, bytes_received=12_345_678)
    member.evaluation = Evaluation(9, 100, 0.5, 0.75, 0.4, 0.8, 0.25)
    assert rows(member) == [
        ["board-1", "3", "1200", "50.0%", "75.0%", "80.0% (0.4)", "25.0%", "12.3"]
    ]


def test_who_was_never_evaluated_has_no_accuracies() -> None:
    assert rows(Member("board-1", 3, 50, 8)) == [["board-1", "3", "50", "-", "-", "-", "-", "0.0"]]


def test_clients_come_by_cut_layer_and_name() -> None:
    members = [Member("b", 4, 50, 8), Member("c", 3, 50, 8), Member("a", 4, 50, 8)]
    assert [row[0] for row in rows(*members)] == ["c", "a", "b"]
