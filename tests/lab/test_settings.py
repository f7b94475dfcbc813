from __future__ import annotations

import pytest

from hetero_common import settings
from hetero_common.agreement.plan import Plan
from hetero_common.errors import SettingsError
from hetero_lab.methods import METHODS
from hetero_lab.settings import SimulationSettings

pytestmark = pytest.mark.usefixtures("unset_settings")


@pytest.mark.parametrize(
    ("flags", "cuts"),
    [
        (["--clients", "1"], [3]),
        (["--clients", "5"], [3, 4, 5, 3, 4]),
        (["--clients", "2", "--cut-layers", " 7 , 1"], [7, 1]),
        (["--clients", "2", "--cut-layers", "2"], [2, 2]),
    ],
)
def test_cut_layers_are_dealt_out_in_turn(flags: list[str], cuts: list[int]) -> None:
    assert settings.load(SimulationSettings, flags, "hetero-sim").cuts() == cuts


def test_bad_cut_layers_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(SettingsError, match="cut"):
        settings.load(SimulationSettings, ["--cut-layers", "3,x"], "hetero-sim")


def test_its_settings_are_those_of_server_clients_and_plan() -> None:
    chosen = settings.load(
        SimulationSettings,
        ["--strategy", "averaging", "--alpha", "0.1", "--threshold", "0.2", "--rounds", "7"],
        "hetero-sim",
    )
    assert type(chosen.plan()) is Plan and chosen.plan().rounds == 7
    assert chosen.exit_rule.threshold == 0.2
    assert (chosen.strategy, chosen.alpha) == ("averaging", 0.1)


def test_every_method_can_be_named() -> None:
    for method in METHODS:
        chosen = settings.load(SimulationSettings, ["--method", method], "hetero-sim")
        assert chosen.method == method
    with pytest.raises(SettingsError, match="setting method"):
        settings.load(SimulationSettings, ["--method", "gossip"], "hetero-sim")
