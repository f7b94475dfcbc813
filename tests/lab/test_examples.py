"""The code in the documents does what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from hetero_client.shards import load_test
from hetero_common.rundir import read_events, read_plan

if TYPE_CHECKING:
    from conftest import Simulate

RUNS = Path(__file__).parents[2] / "docs" / "runs.md"


@pytest.mark.parametrize("head", ["linear", "conv"])
def test_a_servers_file_is_loaded_as_docs_runs_md_says(simulate: Simulate, head: str) -> None:
    run = simulate(
        *("--dataset", "digits", "--normalization", "digits", "--image-size", "8", "--width", "4"),
        *("--model", "tinycnn", "--cut-layers", "2,4", "--clients", "2", "--rounds", "60"),
        *("--exit-head", head, "--augment", "none"),
    )
    blocks = re.findall(r"```python\n(.*?)```", RUNS.read_text(), re.S)
    (example,) = [block for block in blocks if 'Path("RUN")' in block]
    loaded: dict[str, Any] = {}
    exec(example.replace("RUN", str(run)), loaded)
    test = load_test("digits", Path("data"), read_plan(run))
    with torch.no_grad():
        exit_, whole = loaded["logits"](test.images)
    right = [
        float((logits.argmax(dim=1) == test.labels).double().mean()) for logits in (exit_, whole)
    ]
    (told,) = [
        event
        for event in read_events(run)
        if event["event"] == "evaluation" and event["cut_layer"] == 2
    ]
    assert right == pytest.approx([told["exit_accuracy"], told["server_accuracy"]], abs=0.003)
