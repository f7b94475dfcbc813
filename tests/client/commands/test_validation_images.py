from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hetero_client.commands.validation_images import held_out
from hetero_client.data.shard import load_validation
from hetero_client.settings import ClientSettings
from hetero_common.agreement.plan import Plan
from hetero_common.errors import SettingsError
from hetero_common.records.rundir import SETTINGS_FILE
from hetero_common.settings import as_yaml, load

PLAN = Plan(model="tinycnn", width=4, image_size=8)
FLAGS = ("--cut-layer", "2", "--dataset", "digits", "--shard", "2/3", "--partition", "dirichlet")


def run_of(folder: Path, *flags: str) -> ClientSettings:
    """Leave the settings of a client in a folder, as it does itself."""
    settings = load(ClientSettings, [*FLAGS, *flags], "hetero-client")
    (folder / SETTINGS_FILE).write_text(as_yaml(settings))
    return settings


def test_the_images_are_found_again_from_the_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = run_of(tmp_path, "--validation", "0.1", "--alpha", "0.7")
    monkeypatch.setenv("HETERO_SHARD", "1/3")  # of whoever calibrates; the run is settled
    found = held_out(tmp_path, PLAN)
    expected = load_validation(settings, PLAN, 1, 3)
    assert torch.equal(found.shard.images, expected.images)
    assert torch.equal(found.shard.labels, expected.labels)
    assert found.source == "held out of shard 2/3 of digits"


def test_so_they_are_where_cut_layers_decide_who_gets_what(tmp_path: Path) -> None:
    skewed = ("--cut-skew", "0.8", "--size-spread", "0.5", "--cut-layers", "3,2,4")
    settings = run_of(tmp_path, "--validation", "0.2", *skewed)
    found = held_out(tmp_path, PLAN)
    expected = load_validation(settings, PLAN, 1, 3, [3, 2, 4])
    assert torch.equal(found.shard.images, expected.images)


def test_a_run_that_has_held_out_nothing_says_what_to_do(tmp_path: Path) -> None:
    run_of(tmp_path)
    with pytest.raises(SettingsError) as refused:
        held_out(tmp_path, PLAN)
    assert str(refused.value) == (
        f"{tmp_path} has held out no images: train with --validation 0.1, or give labeled images "
        "with --dataset folder:PATH"
    )


def test_a_run_from_before_there_was_a_share_has_held_out_nothing(tmp_path: Path) -> None:
    run_of(tmp_path)
    lines = (tmp_path / SETTINGS_FILE).read_text().splitlines()
    old = [line for line in lines if not line.startswith("validation:")]
    assert len(old) == len(lines) - 1
    (tmp_path / SETTINGS_FILE).write_text("\n".join(old))
    with pytest.raises(SettingsError, match="has held out no images"):
        held_out(tmp_path, PLAN)


@pytest.mark.parametrize("text", [None, "shard: [1", "- shard", "dataset: digits", "validation: x"])
def test_settings_that_do_not_say_are_named(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / SETTINGS_FILE).write_text(text)
    with pytest.raises(SettingsError, match=r"settings.yaml does not say which images were held"):
        held_out(tmp_path, PLAN)
