from __future__ import annotations

from operator import attrgetter

import pytest

from hetero_lab.reading.grouping import Group
from hetero_lab.reading.run import Participant
from hetero_lab.reading.spread import Spread
from hetero_lab.report.strands import (
    Strand,
    client_strands,
    cut_strands,
    group_cut_strands,
    group_strand,
    pooled,
    run_strand,
)
from support.sample_runs import CURVE, measured, participant, run_of

EXIT, SERVER = attrgetter("exit"), attrgetter("server")


def client(name: str, cut: int | None, *exits: float) -> Participant:
    """Measured with these accuracies, round by round."""
    return participant(name, cut, *(measured(r, exit_) for r, exit_ in enumerate(exits)))


FEW = run_of(client("a", 2, 0.1, 0.2), client("b", 3, 0.3, 0.4), client("c", 3, 0.5, 0.8))


def test_few_clients_have_a_strand_each_and_many_one_per_cut_layer() -> None:
    assert [each.label for each in client_strands(FEW)] == ["a (cut 2)", "b (cut 3)", "c (cut 3)"]
    many = run_of(*(client(f"c{n}", 2 + n % 2, 0.5) for n in range(7)))
    assert [each.label for each in client_strands(many)] == [
        "cut 2 (4 clients)",
        "cut 3 (3 clients)",
    ]


def test_clients_of_a_cut_layer_are_the_values_of_its_strand() -> None:
    shallow, deep = cut_strands(FEW)
    assert (shallow.label, deep.label) == ("cut 2", "cut 3 (2 clients)")
    assert shallow.at_last(EXIT) == Spread(0.2, None, 1)
    assert deep.at_last(EXIT) == Spread.of([0.4, 0.8])


def test_an_undivided_model_has_no_cut_layer() -> None:
    whole = run_of(client("whole model", None, 0.5), method="centralized")
    assert cut_strands(whole) == []
    assert [each.label for each in client_strands(whole)] == ["whole model"]
    assert run_strand(whole).label == "whole model"


def test_a_run_is_the_mean_over_its_participants() -> None:
    strand = run_strand(FEW)
    assert strand.label == "all 3 clients"
    spread = strand.at_last(EXIT)
    assert spread is not None and spread.count == 3
    assert spread.mean == pytest.approx((0.2 + 0.4 + 0.8) / 3)


def test_pooled_participants_are_one_value() -> None:
    together = pooled(run_strand(FEW))
    assert together.participants == run_strand(FEW).participants
    spread = together.at_last(EXIT)
    assert spread is not None
    assert (spread.deviation, spread.count) == (None, 1)


def test_values_come_by_round() -> None:
    by_round = run_strand(FEW).by_round(EXIT)
    assert list(by_round) == [0, 1]
    assert by_round[0].mean == pytest.approx(0.3)


def test_what_was_not_measured_is_left_out() -> None:
    strand = run_strand(run_of(participant("a", 2, measured(0, None, 0.5), measured(1))))
    assert list(strand.by_round(EXIT)) == [1]
    assert list(strand.by_round(SERVER)) == [0, 1]
    assert strand.by_round(EXIT, training=True) == {}
    assert run_strand(run_of(participant("a", 2))).at_last(EXIT) is None


def test_repetitions_meet_in_the_rounds_that_all_have_measured() -> None:
    runs = (run_of(client("a", 2, 0.1, 0.2)), run_of(client("a", 2, 0.3), seed=1))
    strand = group_strand(Group("mine", runs))
    assert strand.label == "mine (2 runs)"
    assert list(strand.by_round(EXIT)) == [0]
    assert list(Strand("mine", strand.members).by_round(EXIT)) == [0, 1]


def test_repetitions_are_compared_cut_by_cut() -> None:
    other = run_of(client("a", 3, 0.6), client("d", 4, 0.9), seed=1)
    strands = group_cut_strands(Group("mine", (FEW, other)))
    assert list(strands) == [2, 3, 4]
    assert strands[3].at_last(EXIT) == Spread.of([(0.4 + 0.8) / 2, 0.6])
    assert strands[4].at_last(EXIT) == Spread(0.9, None, 1)


def test_offloading_is_of_those_whose_curves_were_recorded() -> None:
    run = run_of(participant("a", 2, measured(0, curve=CURVE)), participant("b", 3, measured(0)))
    assert len(run_strand(run).offloading()) == 1
    assert run_strand(FEW).offloading() == []
