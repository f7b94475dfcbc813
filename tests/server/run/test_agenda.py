from __future__ import annotations

from hetero_server.run.agenda import Agenda
from hetero_server.run.work import ForgetWork, JoinWork, LeaveWork


def test_work_is_done_in_its_order() -> None:
    agenda = Agenda()
    agenda.add(JoinWork("a", 1))
    agenda.add(LeaveWork("b"))
    assert [agenda.next(), agenda.next(), agenda.next()] == [JoinWork("a", 1), LeaveWork("b"), None]


def test_an_outlier_is_forgotten_before_anything_else_and_once() -> None:
    agenda = Agenda()
    agenda.add(JoinWork("a", 1))
    agenda.forget("c")
    assert [agenda.next(), agenda.next(), agenda.next()] == [
        ForgetWork("c"),
        JoinWork("a", 1),
        None,
    ]
