"""The cells of tables; how they look on a page: test_page.py."""

from __future__ import annotations

import dataclasses

from hetero_lab.reading.grouping import Group
from hetero_lab.reading.run import Incident, TransferredBytes
from hetero_lab.report.tables import (
    classes_table,
    clients_table,
    compared_classes_table,
    compared_cuts_table,
    cuts_table,
    differences_table,
    incidents_table,
    results_table,
    runs_table,
)
from support.sample_runs import CURVE, measured, participant, planned, run_of

NOTHING = "–"  # noqa: RUF001 - the dash of tables
WHOLE = run_of(participant("whole model", None, measured(0, None, 0.7)), method="centralized")


def test_a_client_has_its_last_numbers() -> None:
    client = dataclasses.replace(
        participant("a", 3, measured(0, curve=CURVE)),
        images=1200,
        steps=34567,
        payload=TransferredBytes(1_234_567, 89_000_000),
    )
    table = clients_table(run_of(client))
    assert (table.title, table.texts) == ("Clients", 1)
    assert table.rows == (
        *(("a", "3", "1,200", "60.00", "80.00", "90.00", "50.00", "34,567", "1.23", "89.00"),),
    )
    assert "up to the uncertainty that was set (0.2)" in table.caption


def test_what_was_not_measured_is_a_dash() -> None:
    table = clients_table(WHOLE)
    assert table.title == "Models"
    assert table.rows[0][:7] == ("whole model", NOTHING, "50", NOTHING, "70.00", NOTHING, NOTHING)
    assert table.rows[0][8:] == (NOTHING, NOTHING)
    assert "Combined" not in table.caption


def test_cut_layers_have_means_and_deviations_and_all_clients_a_row() -> None:
    clients = (("a", 2, 0.5), ("b", 3, 0.6), ("c", 3, 0.8))
    table = cuts_table(run_of(*(participant(n, cut, measured(0, e)) for n, cut, e in clients)))
    assert table is not None
    assert [row[:2] for row in table.rows] == [
        ("cut 2", "50.00"),
        ("cut 3 (2 clients)", "70.00 ± 14.14"),
        ("all 3 clients", "63.33 ± 15.28"),
    ]
    assert cuts_table(WHOLE) is None
    assert compared_cuts_table([Group("c", (WHOLE,))]) is None


def test_results_are_means_over_the_runs_of_a_label() -> None:
    runs = tuple(
        run_of(participant("a", 3, measured(0, exit_, sent=10**6)), seed=seed)
        for seed, exit_ in ((3, 0.5), (5, 0.7))
    )
    table = results_table([Group("mine", runs), Group("whole", (WHOLE,))])
    mine, whole = table.rows
    assert mine[:4] == ("mine", "2", "3, 5", "60.00 ± 14.14")
    assert mine[-2:] == ("1.00 ± 0.00", "0.00 ± 0.00")
    assert whole[:5] == ("whole", "1", "0", NOTHING, "70.00")
    assert "Undivided models stand under server." in table.caption
    assert "Undivided" not in results_table([Group("mine", runs)]).caption


def test_differences_name_what_is_not_the_same() -> None:
    one = run_of(participant("a", 3, measured(0)))
    others = (planned(one, wire="fp16"), planned(one, wire="fp32"))
    table = differences_table([Group("mine", (one,)), Group("theirs", others)])
    assert table is not None
    assert (table.headings, table.texts) == (("", "mine", "theirs"), 3)
    assert table.rows == (
        *(
            (
                "Wire",
                "int8 activations, bf16 weights",
                "fp16 activations, bf16 weights; fp32 activations, bf16 weights",
            ),
        ),
    )
    assert differences_table([Group("mine", (one,)), Group("again", (one,))]) is None


def test_every_run_has_a_row_of_what_is_its_own() -> None:
    one, other = (run_of(participant("a", 3, measured(1)), seed=seed) for seed in (4, 5))
    table = runs_table([Group("mine", (one,)), Group("theirs", (other,))])
    assert table.headings == ("run", "label", "rounds", "seed", "started", "took")
    assert [row[1:4] for row in table.rows] == [("mine", "2", "4"), ("theirs", "2", "5")]


def test_classes_are_shown_where_they_were_recorded() -> None:
    run = run_of(participant("a", 3, measured(0)))
    assert classes_table(run) is None
    assert compared_classes_table([Group("mine", (run,))]) is None
    last = dataclasses.replace(measured(0), server_classes=(0.9, None, 0.7))
    told = planned(run_of(participant("a", 3, last)), classes=3)
    table = classes_table(told)
    assert table is not None
    assert (table.headings, table.rows) == (
        ("class", "server %"),
        (("0", "90.00"), ("1", NOTHING), ("2", "70.00")),
    )
    compared = compared_classes_table([Group("mine", (told,)), Group("none", (run,))])
    assert compared is not None
    assert compared.rows == (("mine", NOTHING, NOTHING, "70.00", "90.00"),)


def test_incidents_say_when_and_of_whom_up_to_a_number() -> None:
    run = run_of(participant("a", 3, measured(0)))
    assert incidents_table(run) is None
    incidents = (Incident(3725.4, 4, "a", "it left"), Incident(1.0, None, None, "restarted"))
    table = incidents_table(dataclasses.replace(run, incidents=incidents))
    assert table is not None
    assert table.rows == (
        ("1:02:05", "5", "a", "it left"),
        ("0:00:01", NOTHING, NOTHING, "restarted"),
    )
    many = incidents_table(dataclasses.replace(run, incidents=incidents * 700))
    assert many is not None
    assert (len(many.rows), many.caption) == (200, "1,200 more are in metrics.jsonl.")
