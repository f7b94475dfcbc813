"""What figures show: how many lines, of what, with which numbers."""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING

import pytest

from hetero_lab.reading.grouping import Group
from hetero_lab.reading.reader import read_run
from hetero_lab.reading.run import Measurement, Participant, TransferredBytes
from hetero_lab.report.charts import Chart, Role, Scale
from hetero_lab.report.making import comparison_charts, run_charts
from lab.test_simulation import SMALL
from support.sample_runs import CURVE, labels, measured, participant, run_of

if TYPE_CHECKING:
    from conftest import Simulate


def chart(charts: list[Chart], name: str) -> Chart:
    return next(each for each in charts if each.name == name)


def names(charts: list[Chart]) -> list[str]:
    return [each.name for each in charts]


ALL = ["accuracy-over-rounds", "accuracy-over-payload", "accuracy-over-offload"]


def three_clients() -> list[Participant]:
    return [
        participant(
            f"c{cut}",
            cut,
            *(measured(r, 0.1 * cut, 0.5, (r + 1) * cut * 10**6, CURVE) for r in (0, 4)),
        )
        for cut in (1, 2, 3)
    ]


def test_few_clients_have_a_line_each() -> None:
    charts = run_charts(run_of(*three_clients()))
    assert names(charts) == ALL
    rounds = chart(charts, "accuracy-over-rounds")
    assert (rounds.x_label, rounds.y_label, rounds.x_scale) == (
        "rounds",
        "test accuracy (%)",
        Scale.WHOLE,
    )
    assert [panel.title for panel in rounds.panels] == ["Exit", "Server"]
    for panel in rounds.panels:
        assert labels(panel.lines) == ["c1 (cut 1)", "c2 (cut 2)", "c3 (cut 3)"]
        assert {line.x for line in panel.lines} == {(1, 5)}, "the first round is round 1"
        assert {line.deviation for line in panel.lines} == {None}
    assert [line.y[0] for line in rounds.panels[0].lines] == pytest.approx([10, 20, 30])


def test_payload_is_that_of_each_line() -> None:
    payload = chart(run_charts(run_of(*three_clients())), "accuracy-over-payload")
    assert payload.x_label == "payload per client, both ways (MB)"
    assert [line.x for line in payload.panels[1].lines] == [(1, 5), (2, 10), (3, 15)]
    assert payload.x_scale is Scale.LINEAR


def test_offload_has_a_panel_for_all_clients_and_for_each_cut_layer() -> None:
    offload = chart(run_charts(run_of(*three_clients())), "accuracy-over-offload")
    assert [panel.title for panel in offload.panels] == ["all 3 clients", "cut 1", "cut 2", "cut 3"]
    for panel in offload.panels:
        assert [(line.label, line.role) for line in panel.lines] == [
            ("by uncertainty", Role.MEASURED),
            ("random", Role.RANDOM),
            ("oracle", Role.ORACLE),
            ("at threshold 0.2", Role.POINT),
        ]
        by_uncertainty, random, oracle, point = panel.lines
        assert (*random.x, *random.y) == pytest.approx((0, 100, 60, 80))
        assert (by_uncertainty.x[10], by_uncertainty.y[10]) == pytest.approx((50, 90))
        assert max(oracle.y) == pytest.approx(90)
        assert (point.x, point.y) == ((50,), (90,))
        assert by_uncertainty.deviation is None


@pytest.mark.parametrize("count", [7, 100])
def test_many_clients_have_a_line_per_cut_layer(count: int) -> None:
    clients = [
        participant(
            f"c{n}",
            1 + n % 2,
            measured(0, n / 100, 0.5, 100, CURVE),
            measured(1, n / 100, 0.5, 200, CURVE),
        )
        for n in range(count)
    ]
    charts = run_charts(run_of(*clients))
    for each in charts[:2]:
        for panel in each.panels:
            assert labels(panel.lines) == [
                f"cut 1 ({(count + 1) // 2} clients)",
                f"cut 2 ({count // 2} clients)",
            ]
    odd = [float(n) for n in range(1, count, 2)]
    line = charts[0].panels[0].lines[1]
    assert line.y == pytest.approx([statistics.fmean(odd)] * 2)
    assert line.deviation == pytest.approx([statistics.stdev(odd)] * 2)
    assert "Bands: one standard deviation of the clients" in charts[0].caption
    assert charts[2].panels[0].title == f"all {count} clients"


def test_a_comparison_has_a_line_per_label_and_bands_over_seeds() -> None:
    def seeded(seed: int, exit_: float) -> Participant:
        return participant(
            "c", 3, measured(0, exit_, 0.5, 10, CURVE), measured(1, 0.5, 0.5, 20, CURVE)
        )

    runs = tuple(
        run_of(seeded(seed, exit_), seeded(seed, exit_ + 0.2), seed=seed)
        for seed, exit_ in enumerate((0.1, 0.3, 0.8))
    )
    other = run_of(seeded(0, 0.5), method="averaging")
    charts = comparison_charts([Group("mine", runs), Group("theirs", (other,))])
    assert names(charts) == ALL
    for each in charts[:2]:
        assert [labels(panel.lines) for panel in each.panels] == [["mine (3 runs)", "theirs"]] * 2
    mine, theirs = charts[0].panels[0].lines
    assert mine.y == pytest.approx((50, 50))
    assert mine.deviation == pytest.approx((100 * statistics.stdev((0.2, 0.4, 0.9)), 0))
    assert theirs.deviation is None
    assert "one standard deviation of the runs" in charts[0].caption
    assert [panel.title for panel in charts[2].panels] == ["mine (3 runs)", "theirs"]


def test_runs_of_a_label_meet_where_all_of_them_were_measured() -> None:
    long = run_of(participant("c", 3, measured(0), measured(1), measured(2)))
    short = run_of(participant("c", 3, measured(0), measured(2)), seed=1)
    shorter = run_of(participant("c", 3, measured(0), measured(1)), seed=2)
    line = comparison_charts([Group("x", (long, short))])[0].panels[0].lines[0]
    assert line.x == (1, 3)
    assert comparison_charts([Group("x", (long, short, shorter))])[0].panels[0].lines[0].x == (1,)


def test_what_sends_nothing_is_a_level() -> None:
    split = run_of(participant("c", 3, measured(0, sent=10**9), measured(1, sent=2 * 10**9)))
    central = run_of(
        participant("whole model", None, measured(0, None, 0.7), measured(1, None, 0.9)),
        method="centralized",
    )
    payload = chart(comparison_charts([Group("s", (split,)), Group("c", (central,))]), ALL[1])
    assert payload.x_label.endswith("(GB)")
    assert [panel.title for panel in payload.panels] == ["Exit", "Server, or whole model"]
    assert labels(payload.panels[0].lines) == ["s"], "an undivided model has no exit"
    level = payload.panels[1].lines[1]
    assert (level.label, level.role, level.x, level.y) == ("c", Role.REFERENCE, (1, 2), (90, 90))
    assert "Level: the last accuracy of what sends nothing." in payload.caption
    alone = comparison_charts([Group("c", (central, central))])
    assert names(alone) == [ALL[0]], "nothing was sent, and nothing could be offloaded"
    assert [panel.title for panel in alone[0].panels] == ["Whole model"]


def test_lines_that_are_far_apart_have_a_logarithmic_axis() -> None:
    def sent(size: int) -> Group:
        return Group(
            str(size),
            (run_of(participant("c", 3, measured(0, sent=size), measured(1, sent=2 * size))),),
        )

    near = chart(comparison_charts([sent(10), sent(80)]), ALL[1])
    far = chart(comparison_charts([sent(10), sent(81)]), ALL[1])
    assert (near.x_scale, far.x_scale) == (Scale.LINEAR, Scale.LOGARITHMIC)


def test_what_was_not_counted_or_is_nothing_does_no_harm() -> None:
    """As of a client that is evaluated before it has trained, or whose records are damaged."""
    some = run_of(participant("c", 3, measured(0), measured(1, sent=10**9)))
    none = run_of(participant("c", 3, measured(0, sent=0), measured(1, sent=0)), method="averaging")
    payload = chart(comparison_charts([Group("s", (some,)), Group("n", (none,))]), ALL[1])
    assert [line.x for line in payload.panels[0].lines] == [(1,), (0, 0)]
    assert payload.x_scale is Scale.LINEAR


def test_without_a_curve_there_is_no_such_figure() -> None:
    assert names(run_charts(run_of(participant("c", 3, measured(0), measured(1))))) == [ALL[0]]


def test_training_accuracies_stand_in_for_a_single_test() -> None:
    trained = tuple(Measurement(r, 0.1 * r, 0.2 * r, TransferredBytes(r + 1, 0)) for r in range(3))
    client = dataclasses.replace(participant("c", 3, measured(2, sent=9)), training=trained)
    rounds, payload = run_charts(run_of(client))
    assert rounds.y_label == payload.y_label == "training accuracy (%)"
    assert rounds.panels[0].lines[0].y == pytest.approx((0, 10, 20))
    assert payload.panels[1].lines[0].x == (1, 2, 3)
    # Not beside a run that has none.
    central = run_of(participant("whole model", None, measured(2, None, 0.7)), method="centralized")
    compared = comparison_charts([Group("s", (run_of(client),)), Group("c", (central,))])
    assert compared[0].y_label == "test accuracy (%)"
    assert compared[0].panels[0].lines[0].x == (3,)


def test_a_trained_run_has_all_figures(simulate: Simulate) -> None:
    run = read_run(simulate(*SMALL, "--clients", "2", "--eval-every", "1"))
    charts = run_charts(run)
    assert names(charts) == ALL
    assert [len(panel.lines) for panel in charts[0].panels] == [2, 2]
    for panel, each in zip(charts[2].panels[1:], run.participants, strict=True):
        assert each.last is not None and each.last.exit is not None and each.last.server is not None
        assert panel.lines[1].y == pytest.approx((100 * each.last.exit, 100 * each.last.server))
        assert each.last.offload_share is not None
        assert panel.lines[3].x == pytest.approx((100 * each.last.offload_share,))
