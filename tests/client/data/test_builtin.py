from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hetero_client.data import torchvision_sets
from hetero_client.data.source import DATASETS, ArraySource


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10"])
def test_each_set_is_opened_under_its_own_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, Path, str]] = []

    def remember(dataset: str, data_dir: Path, split: str) -> ArraySource | None:
        opened.append((dataset, data_dir, split))
        return None

    monkeypatch.setattr(torchvision_sets, "open_builtin", remember)
    DATASETS[name]("", tmp_path, "test")
    assert opened == [(name, tmp_path, "test")]


def test_torchvision_is_not_loaded_to_know_their_names() -> None:
    script = (
        "import sys; from hetero_client.data import DATASETS; "
        "sys.exit('torchvision' in sys.modules or 'stl10' not in DATASETS.names())"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
