from __future__ import annotations

import pytest

from hetero_common import settings
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
