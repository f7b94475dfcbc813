from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hetero_common.models.split import activation_shapes
from hetero_common.records.rundir import (
    read_plan,
)
from hetero_common.tensors.weight_delta import pack
from hetero_common.tensors.weights import read_file, tensors_to_bytes
from hetero_lab.methods.undivided import whole_model
from hetero_lab.reading.participants import read_participants
from hetero_lab.reading.reader import read_run
from hetero_lab.reading.run import Participant, TransferredBytes
from lab.test_simulation import SMALL
from support.events import recorded
from support.sample_runs import evaluation_event, joined, round_event, write_run

if TYPE_CHECKING:
    from conftest import Simulate


@pytest.fixture(scope="module")
def simulated(simulate: Simulate) -> Path:
    flags = ("--clients", "3", "--eval-every", "1", "--threshold", "0.9", "--wire", "fp16")
    return simulate(*SMALL, *flags, "--seed", "5", "--feedback", "gradient")


def test_payload_is_activations_feedback_and_weights_of_training(simulated: Path) -> None:
    shapes = activation_shapes(whole_model(read_plan(simulated)), image_size=8)
    for number, each in enumerate(read_run(simulated).participants, start=1):
        assert each.cut_layer is not None
        batch = 8 * math.prod(shapes[each.cut_layer - 1]) * 2  # fp16
        file = simulated / f"client-{number}.safetensors"
        weights, (held, _) = file.stat().st_size, read_file(file)
        change = len(tensors_to_bytes(pack(held, held, "bf16")))
        trained = [
            TransferredBytes(n * (5 * batch + change), n * (5 * batch + weights)) for n in (1, 2)
        ]
        assert [m.payload for m in each.training] == trained
        # What is averaged is pulled before it is evaluated, so the next round does without.
        tested = [TransferredBytes(p.sent, p.received + weights) for p in trained]
        assert [m.payload for m in each.tests] == tested
        assert each.payload == tested[-1]


def test_of_a_round_that_is_recorded_again_the_last_counts(tmp_path: Path) -> None:
    events = [joined(), evaluation_event(0), evaluation_event(0, exit_accuracy=0.9)]
    (client,) = read_run(write_run(tmp_path, events)).participants
    assert [m.exit for m in client.tests] == [0.9]


def test_bytes_of_a_client_that_joins_anew_are_added(tmp_path: Path) -> None:
    weights: dict[str, Any] = {"bytes_pushed": 10, "bytes_pulled": 20, "bytes_returned": 5}
    events = [
        joined(),
        round_event(0, **weights),
        {"event": "left", "client": "a", "round": 0, "state": "LEFT"},
        joined(),
        round_event(1, bytes_received=700, **weights),
    ]
    (client,) = read_run(write_run(tmp_path, events)).participants
    assert [m.payload for m in client.training] == [
        TransferredBytes(1010, 25),
        TransferredBytes(1720, 50),
    ]


def participants(*events: dict[str, Any]) -> list[Participant]:
    return list(read_participants(recorded(events), has_trained_exits=True))


def test_numbers_in_names_are_sorted_as_numbers() -> None:
    names = ["client-10", "client-9", "client-1", "b", "client-x"]
    found = participants(*(joined(name) for name in names), joined("first", cut_layer=1))
    assert [each.name for each in found] == [
        *("first", "b", "client-1", "client-9", "client-10", "client-x"),
    ]


def test_steps_are_those_that_were_applied() -> None:
    (client,) = participants(joined(), round_event(0), round_event(1, applied="0-2,5"))
    assert client.steps == 8 + 4


def test_what_a_resumed_server_does_not_know_is_taken_back() -> None:
    events = [joined(), *(round_event(r) for r in range(3)), evaluation_event(2)]
    (client,) = participants(*events, {"event": "resumed", "round": 0})
    assert ([m.round for m in client.training], client.tests, client.steps) == ([0], (), 8)


def test_an_averaged_prefix_answers_from_its_exit_and_a_whole_model_as_a_server() -> None:
    common = {"event": "evaluation", "round": 0, "samples": 10, "accuracy": 0.5}
    of_classes = {"class_accuracy": [0.25, None]}
    prefix, whole = sorted(
        participants(common | {"cut_layer": 2} | of_classes, common | of_classes),
        key=lambda each: each.name,
    )
    assert (prefix.name, prefix.cut_layer) == ("averaged prefix 2", 2)
    assert (whole.name, whole.cut_layer) == ("whole model", None)
    assert prefix.last is not None and whole.last is not None
    assert (prefix.last.exit, prefix.last.server) == (0.5, None)
    assert (whole.last.exit, whole.last.server) == (None, 0.5)
    assert prefix.last.exit_classes == whole.last.server_classes == (0.25, None)


def test_exits_that_were_not_trained_have_answered_nothing() -> None:
    events = [joined(), round_event(0), evaluation_event(0)]
    (client,) = read_participants(recorded(events), has_trained_exits=False)
    assert client.last is not None
    assert (client.last.exit, client.last.threshold, client.last.combined) == (None, None, None)
    assert client.training[0].exit is None
    assert client.last.server == 0.8


def test_a_curve_is_sorted_by_its_thresholds_and_has_two_points_at_least() -> None:
    points = [
        {"threshold": t, "accuracy": 0.5, "offload_share": s} for t, s in ((1.0, 0.0), (-1.0, 1.0))
    ]
    told: dict[str, Any] = {"curve": points, "only_server_right": 0.3}
    (client,) = participants(joined(), evaluation_event(0, **told))
    assert client.last is not None and client.last.curve is not None
    assert [point.threshold for point in client.last.curve.points] == [-1.0, 1.0]
    (short,) = participants(joined(), evaluation_event(0, **(told | {"curve": points[:1]})))
    assert short.last is not None and short.last.curve is None


def test_a_client_counts_under_names_of_its_own() -> None:
    event = {"event": "round", "round": 0, "bytes_sent": 100, "bytes_received": 10}
    (client,) = participants(joined(), event)
    assert client.payload == TransferredBytes(100, 10)
    with pytest.raises(ValueError, match="never joined"):
        participants(event)
