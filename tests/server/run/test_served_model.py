"""A finished run's model that answers, with nobody in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hetero_common.agreement.plan import Plan
from hetero_common.errors import RefusedInput, SettingsError
from hetero_common.records.rundir import MODEL_FILE, PLAN_FILE
from hetero_server.learning.initial_model import InitialModel
from hetero_server.run.phase import Phase
from hetero_server.run.served_model import ServedModel

PLAN = Plan(model="tinycnn", width=4, image_size=8, classes=3)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The directory of a run that has ended with its initial weights."""
    (tmp_path / PLAN_FILE).write_text(PLAN.model_dump_json())
    (tmp_path / MODEL_FILE).write_bytes(InitialModel(PLAN).weights.to_bytes())
    return tmp_path


@pytest.mark.parametrize("cut_layer", [1, 2, 3])
def test_it_answers_what_enters_after_any_cut_layer(finished: Path, cut_layer: int) -> None:
    model = ServedModel(finished)
    shape = model.initial.shapes[cut_layer - 1]
    answer = model.predict(torch.ones(4, *shape), cut_layer, None)
    assert answer.shape == (4, PLAN.classes)
    torch.testing.assert_close(answer.sum(dim=1), torch.ones(4))


def test_nobody_takes_part(finished: Path) -> None:
    model = ServedModel(finished)
    assert (model.phase, model.round, dict(model.members)) == (Phase.SERVING, 0, {})
    assert model.held_bytes > 0


def test_what_no_layer_gives_is_refused(finished: Path) -> None:
    model = ServedModel(finished)
    with pytest.raises(RefusedInput, match="an activation is beyond"):
        model.predict(torch.full((1, *model.initial.shapes[0]), 1e30), 1, None)


def test_a_run_that_is_not_finished_cannot_be_served(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        ServedModel(tmp_path)
