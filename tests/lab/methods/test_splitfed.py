from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hetero_common.records.history import read_records
from hetero_common.records.rundir import MODEL_FILE
from hetero_lab.__main__ import main
from lab.test_simulation import SMALL, bits

if TYPE_CHECKING:
    from conftest import Simulate

TWO = ("--clients", "2")


@pytest.mark.parametrize(
    ("method", "strategy"), [("splitfed-v1", "averaging"), ("splitfed-v2", "sequential")]
)
def test_splitfed_is_the_split_run_with_its_settings(
    method: str, strategy: str, simulate: Simulate
) -> None:
    cut = (*SMALL, *TWO, "--cut-layers", "3")
    named = simulate(*cut, "--method", method)
    no_exit = ("--exit-weight", "0", "--exits", "last", "--exit-head", "linear")
    spelt = simulate(*cut, "--strategy", strategy, "--feedback", "gradient", *no_exit)
    assert bits(named / MODEL_FILE) == bits(spelt / MODEL_FILE)
    pushed = [[event.get("bytes_pushed") for event in read_records(run)] for run in (named, spelt)]
    assert pushed[0] == pushed[1]


def test_splitfed_has_one_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--method", "splitfed-v1"]) == 2
    assert "one cut for all clients" in capsys.readouterr().err
