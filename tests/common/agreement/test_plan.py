from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hetero_common.agreement.plan import Plan
from hetero_common.compute.schedules import StepAt
from hetero_common.wire.frames import CHUNK_BYTES
from hetero_splitee.v1.service_pb2 import PredictResponse


@st.composite
def walks(draw: st.DrawFn) -> tuple[Plan, list[StepAt]]:
    """A plan and every step of its run, in order."""
    rounds, steps = draw(st.integers(1, 12)), draw(st.integers(1, 8))
    walk = [StepAt(r, s, steps) for r in range(rounds) for s in range(steps)]
    return Plan(rounds=rounds, lr_schedule="cosine"), walk


@settings(deadline=None)
@given(walks(), st.floats(1e-6, 10))
def test_the_cosine_falls_from_the_base_rate_towards_zero(
    walk: tuple[Plan, list[StepAt]], base: float
) -> None:
    plan, run = walk
    rates = [plan.learning_rate(base, at) for at in run]
    for index, rate in enumerate(rates):
        progress = index / len(run)  # steps are evenly spread over the run
        assert rate == pytest.approx(base * (1 + math.cos(math.pi * progress)) / 2, abs=1e-12)
    assert rates[0] == base
    assert all(later < rate for rate, later in itertools.pairwise(rates))
    assert rates[-1] > 0


def test_clients_with_more_steps_follow_the_same_cosine_in_smaller_steps() -> None:
    plan = Plan(rounds=10, lr_schedule="cosine")
    assert plan.learning_rate(1.0, StepAt(3, 2, 4)) == plan.learning_rate(1.0, StepAt(3, 5, 10))


@settings(deadline=None)
@given(walks(), st.floats(1e-6, 10))
def test_a_constant_rate_is_constant(walk: tuple[Plan, list[StepAt]], base: float) -> None:
    plan = walk[0].model_copy(update={"lr_schedule": "constant"})
    assert {plan.learning_rate(base, at) for at in walk[1]} == {base}


@pytest.mark.parametrize(
    ("steps_per_round", "shard_size", "steps"),
    [(8, 2, 8), (8, 10_000, 8), (0, 320, 10), (0, 351, 10), (0, 352, 11), (0, 31, 1), (0, 2, 1)],
)
def test_steps_are_as_agreed_or_one_pass_of_full_batches_over_the_shard(
    steps_per_round: int, shard_size: int, steps: int
) -> None:
    plan = Plan(steps_per_round=steps_per_round, batch_size=32)
    assert plan.steps_for(shard_size) == steps


@pytest.mark.parametrize(
    ("rounds", "eval_every", "expected"),
    [
        (7, 0, [6]),
        (7, 1, [0, 1, 2, 3, 4, 5, 6]),
        (7, 3, [2, 5, 6]),
        (6, 3, [2, 5]),
        (7, 100, [6]),
        (1, 2, [0]),
    ],
)
def test_evaluations_come_every_few_rounds_and_always_at_the_end(
    rounds: int, eval_every: int, expected: list[int]
) -> None:
    plan = Plan(rounds=rounds, eval_every=eval_every)
    assert [r for r in range(rounds) if plan.evaluates_after(r)] == expected
    assert [r for r in range(rounds) if plan.is_last(r)] == [rounds - 1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("stem", "vit"),
        ("image_size", 3),
        ("classes", 1),
        ("augment", "mixup"),
        ("batch_size", 1),
        ("rounds", 0),
        ("steps_per_round", -1),
        ("optimizer", "lion"),
        ("client_lr", 0),
        ("server_lr", -0.1),
        ("lr_schedule", "step"),
        ("momentum", 1),
        ("momentum", -0.1),
        ("weight_decay", -1e-9),
        ("grad_clip", -1),
        ("exit_weight", -1),
        ("feedback", "activations"),
        ("distill_weight", -1),
        ("client_aggregation", "step"),
        ("eval_every", -1),
        ("wire", "fp64"),
        ("precision", "fp16"),
        *(("exits", text) for text in ("", "first", "0", "3,", "3,,4", "3,x", "-1", "3, 4", "²")),
        ("seed", -1),
        ("seed", 2**63),
        ("rouns", 3),
    ],
)
def test_values_out_of_range_and_unknown_names_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate({field: value})
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "field", [name for name, info in Plan.model_fields.items() if info.annotation is float]
)
def test_every_number_is_finite(field: str, value: float) -> None:
    with pytest.raises(ValidationError):
        Plan.model_validate({field: value})


def test_an_unknown_normalization_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"choose one of cifar10, .*r,g,b/r,g,b"):
        Plan(normalization="svhn")


@pytest.mark.parametrize(
    ("exits", "layers"),
    [("last", [4]), ("all", [1, 2, 3, 4]), ("3", [3, 4]), ("9,4,2,2", [2, 4]), ("5", [4])],
)
def test_a_client_has_an_exit_after_its_cut_layer_and_where_the_plan_says(
    exits: str, layers: list[int]
) -> None:
    assert Plan(exits=exits).exit_layers(4) == layers


def test_a_plan_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Plan().rounds = 3  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize(("classes", "rows"), [(2, 256), (10, 256), (1000, 256), (10_000, 26)])
def test_a_prediction_has_as_many_rows_as_fit_a_frame(classes: int, rows: int) -> None:
    plan = Plan(classes=classes)
    assert plan.predict_rows == rows
    answer = PredictResponse(probabilities=bytes(4 * classes * rows), rows=rows)
    assert answer.ByteSize() <= CHUNK_BYTES
