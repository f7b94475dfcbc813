from __future__ import annotations

from pathlib import Path

import pytest

from hetero_common import settings
from hetero_common.agreement.plan import Plan
from hetero_common.settings import Settings
from hetero_lab.settings import SimulationSettings
from hetero_server.presets import PRESETS
from hetero_server.settings import ServerSettings, StrategySettings

pytestmark = pytest.mark.usefixtures("unset_settings")


@pytest.mark.parametrize("command", [ServerSettings, SimulationSettings])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_changes_defaults_and_what_is_set_goes_before_it(
    name: str, command: type[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = settings.load(command, [], "hetero").model_dump()
    chosen = settings.load(command, ["--preset", name], "hetero").model_dump()
    assert chosen == defaults | {"preset": name} | dict(PRESETS[name])
    Path("settings.yaml").write_text(f"preset: {name}\nbatch_size: 5\nrounds: 7")
    monkeypatch.setenv("HETERO_CLIENT_LR", "0.25")
    flags = ["--config", "settings.yaml", "--steps-per-round", "3", "--rounds", "9"]
    given = {"batch_size": 5, "client_lr": 0.25, "steps_per_round": 3, "rounds": 9}
    mixed = settings.load(command, flags, "hetero").model_dump(exclude={"config"})
    assert mixed == {key: chosen[key] for key in mixed} | given


def test_the_default_preset_is_the_defaults() -> None:
    assert PRESETS["default"] == {}
    assert settings.load(ServerSettings, [], "hetero-server").preset == "default"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_set_what_there_is_and_only_the_method(name: str) -> None:
    method = {*StrategySettings.model_fields, *Plan.model_fields}
    assert set(PRESETS[name]) <= method - {"preset", "seed", "rounds", "model"}
