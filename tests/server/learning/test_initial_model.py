from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hetero_common.agreement.plan import Plan
from hetero_common.errors import CutLayerOutOfRange, RefusedInput, SettingsError
from hetero_common.models import build_model
from hetero_common.models.split import fingerprint
from hetero_common.records.rundir import MODEL_FILE, PLAN_FILE
from hetero_common.tensors.weights import Weights
from hetero_server.learning.initial_model import InitialModel, load_run


def same(a: Weights, b: Weights) -> bool:
    one, other = a.flat(), b.flat()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_the_weights_are_a_function_of_the_seed(plan: Plan) -> None:
    torch.manual_seed(5)
    first = InitialModel(plan)
    torch.manual_seed(6)
    assert same(first.weights, InitialModel(plan).weights)
    other = InitialModel(plan.model_copy(update={"seed": plan.seed + 1}))
    assert not same(first.weights, other.weights)


def test_a_client_matches_its_fingerprint(plan: Plan, initial: InitialModel) -> None:
    model = build_model(plan.model, num_classes=plan.classes, width=plan.width)
    assert initial.fingerprint == fingerprint(model, plan.image_size)


def test_there_is_an_exit_head_for_each_cut_layer(initial: InitialModel) -> None:
    assert sorted(initial.weights.layers) == [1, 2, 3, 4, 5, 6]
    assert sorted(initial.weights.exits) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("cut_layer", [0, 6, 7, -1])
def test_a_cut_layer_that_is_none_is_refused(initial: InitialModel, cut_layer: int) -> None:
    with pytest.raises(CutLayerOutOfRange, match=r"choose one of 1\.\.5"):
        initial.require_cut(cut_layer)


def test_every_other_cut_layer_is_taken(initial: InitialModel) -> None:
    for cut_layer in range(1, 6):
        initial.require_cut(cut_layer)


def test_fresh_layers_are_copies_behind_the_cut(initial: InitialModel) -> None:
    first, second = initial.fresh(3), initial.fresh(3)
    assert list(first) == [4, 5, 6]
    with torch.no_grad():
        for parameter in first[5].parameters():
            parameter.zero_()
    held = initial.weights.layers[5]
    assert all(torch.equal(value, held[name]) for name, value in second[5].state_dict().items())


@pytest.mark.parametrize(
    ("exits", "found"), [("all", [3, 4, 5]), ("last", []), ("2,4", [4])], ids=str
)
def test_fresh_exits_are_those_of_the_plan_behind_the_cut(
    plan: Plan, exits: str, found: list[int]
) -> None:
    initial = InitialModel(plan.model_copy(update={"exits": exits}))
    assert list(initial.fresh_exits(2)) == found


def test_it_starts_from_trained_weights_instead(plan: Plan, initial: InitialModel) -> None:
    trained = InitialModel(plan.model_copy(update={"seed": 7})).weights
    initial.load(trained)
    assert initial.weights is trained
    for number, layer in initial.fresh(0).items():
        for name, value in layer.state_dict().items():
            assert torch.equal(value, trained.layers[number][name])


def test_weights_of_another_model_are_refused_and_change_nothing(
    plan: Plan, initial: InitialModel
) -> None:
    before = initial.weights
    wider = InitialModel(plan.model_copy(update={"width": 8})).weights
    with pytest.raises(RefusedInput):
        initial.load(wider)
    assert initial.weights is before


def a_run(folder: Path, plan: Plan, weights: Weights) -> Path:
    (folder / PLAN_FILE).write_text(plan.model_dump_json())
    (folder / MODEL_FILE).write_bytes(weights.to_bytes({}))
    return folder


def test_a_finished_run_is_answered_with(plan: Plan, tmp_path: Path) -> None:
    trained = InitialModel(plan.model_copy(update={"seed": 7})).weights
    loaded = load_run(a_run(tmp_path, plan, trained))
    assert loaded.plan == plan
    model = nn.Sequential(*loaded.fresh(0).values()).eval()
    other = InitialModel(plan)
    other.load(trained)
    expected = nn.Sequential(*other.fresh(0).values()).eval()
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(images), expected(images))


def test_a_run_without_a_whole_model_is_named(
    plan: Plan, initial: InitialModel, tmp_path: Path
) -> None:
    prefix = Weights({k: s for k, s in initial.weights.layers.items() if k < 4})
    with pytest.raises(SettingsError, match="does not hold a whole model of its plan"):
        load_run(a_run(tmp_path, plan, prefix))
