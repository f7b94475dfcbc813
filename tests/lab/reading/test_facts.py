from __future__ import annotations

import dataclasses
from typing import get_args

from hetero_lab.methods import METHODS
from hetero_lab.reading.facts import common, facts, title
from hetero_lab.reading.run import Run
from hetero_server.settings import StrategySettings
from support.sample_runs import measured, participant, planned, run_of

A = participant("a", 3, measured(1))


B = participant("b", 3, measured(1))


def dealt(run: Run, **changes: object) -> Run:
    return dataclasses.replace(run, settings={**run.settings, **changes})


def test_facts_tell_what_was_run() -> None:
    found = facts(run_of(A, B))
    assert found == {
        "Method": "Split training, one shared server model (sequential)",
        "Model": "tinycnn, width 4, cifar stem",
        "Input": "8 x 8 pixels, 10 classes",
        "Data": "digits, dealt out iid",
        "Augmentation": "crop-flip",
        "Clients": "2",
        "Cut layers": "3 (2 clients)",
        "Order": "arrival",
        "Rounds": "2",
        "Steps": "1 a round, batches of 8",
        "Optimizer": "sgd, learning rate 0.1 on clients, 0.1 on the server, cosine",
        "Exits": "3,4,5, deep head",
        "Feedback": "none",
        "Client aggregation": "round",
        "Wire": "int8 activations, bf16 weights",
        "Arithmetic": "fp32",
        "Seed": "0",
        "Recorded by": "simulator",
        "Versions": "hetero-splitee 0.1",
        "Started": "2023-11-14 22:13:20 UTC",
        "Took": "0:00:12",
    }


def test_every_strategy_and_method_has_a_title() -> None:
    strategies = get_args(StrategySettings.model_fields["strategy"].annotation)
    for method in {*strategies, *METHODS} - {"split"}:
        assert title(method) != method


def test_mixed_steps_and_dealing_are_told_too() -> None:
    run = planned(run_of(A, method="mixed"), logit_adjustment=0.5)
    found = facts(dealt(run, partition="dirichlet", alpha=0.3, cut_skew=1.0))
    assert found["Data"] == "digits, dealt out dirichlet, alpha 0.3, cut skew 1.0"
    assert (found["Order"], found["Wire"], found["Logit adjustment"]) == (
        "arrival",
        "int8 activations, bf16 weights",
        "0.5",
    )


def test_what_runs_have_in_common_is_told_once() -> None:
    of_each = ("Rounds", "Seed", "Started", "Took")
    same = {k: v for k, v in facts(run_of(A)).items() if k not in of_each}
    assert common([run_of(A), run_of(A, seed=7)]) == same
    differing = planned(run_of(A, B), wire="fp16")
    found = {"Clients": "1", "Cut layers": "3", "Wire": "int8 activations, bf16 weights"}
    assert common([run_of(A), differing]).items() == same.items() - found.items()
