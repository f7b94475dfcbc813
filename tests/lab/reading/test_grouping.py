from __future__ import annotations

import dataclasses

import pytest

from hetero_common.errors import SettingsError
from hetero_lab.reading.grouping import group
from hetero_lab.reading.run import Run, Source
from support.sample_runs import measured, participant, planned, run_of

A = participant("a", 3, measured(1))
B = participant("b", 3, measured(1))


def grouped(*runs: Run) -> dict[str, list[int]]:
    """Seeds by label."""
    return {each.label: [run.plan.seed for run in each.runs] for each in group(runs)}


def test_runs_that_differ_in_their_seed_only_share_a_label() -> None:
    central = run_of(participant("whole model", None, measured(1)), method="centralized")
    runs = (run_of(A, seed=0), central, run_of(A, seed=1))
    assert grouped(*runs) == {"sequential": [0, 1], "centralized": [0]}


def test_other_settings_are_named_where_they_differ() -> None:
    runs = (run_of(A), planned(run_of(A), wire="fp16"), planned(run_of(A, seed=3), wire="fp16"))
    assert grouped(*runs) == {"sequential, wire int8": [0], "sequential, wire fp16": [0, 3]}


def test_labels_that_name_only_some_of_the_differences_stay_apart() -> None:
    many = {"wire": "fp16", "width": 8, "batch_size": 4, "stem": "imagenet"}
    runs = (run_of(A), planned(run_of(A), **many), planned(run_of(A), **many, weight_decay=0.0))
    labels = list(grouped(*runs))
    assert len(labels) == 3
    assert labels[2] == f"{labels[1]} (2)"


def dealt(run: Run, **changes: object) -> Run:
    return dataclasses.replace(run, settings={**run.settings, **changes})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("cut_skew", 0.5), ("size_spread", 1.0), ("validation", 0.1), ("min_shard", 9)),
        *(("partition", "dirichlet"), ("aggregate_weights", "uniform"), ("threshold", 0.3)),
    ],
)
def test_runs_whose_images_are_dealt_out_otherwise_are_no_repetitions(
    name: str, value: object
) -> None:
    assert len(grouped(run_of(A), dealt(run_of(A, seed=1), **{name: value}))) == 2


def test_what_makes_no_other_experiment_makes_no_other_label() -> None:
    changes = {"data_dir": "elsewhere", "eval_samples": 7, "preset": "paper"}
    assert grouped(run_of(A), dealt(run_of(A, seed=1), **changes)) == {"sequential": [0, 1]}


def test_clients_and_cut_layers_tell_runs_apart() -> None:
    labels = grouped(run_of(A), run_of(A, B))
    assert list(labels) == [
        "sequential, clients 1, cut layers 3",
        "sequential, clients 2, cut layers 3 (2 clients)",
    ]


def test_runs_of_clients_are_called_after_them() -> None:
    runs = [dataclasses.replace(run_of(p), source=Source.CLIENT, method="client") for p in (A, B)]
    assert list(grouped(*runs)) == ["a", "b"]


def test_labels_can_be_given() -> None:
    groups = group([run_of(A), run_of(B), run_of(A)], ["x", "y", "x"])
    assert [(each.label, len(each.runs)) for each in groups] == [("x", 2), ("y", 1)]
    with pytest.raises(SettingsError, match="--labels names 1 of 2 runs"):
        group([run_of(A), run_of(B)], ["x"])
