from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hetero_client.data import open_source
from hetero_common.errors import SettingsError


@pytest.mark.parametrize("dataset", ["mnist", "", "folder:", "CIFAR10"])
def test_unknown_sets_name_the_choices(dataset: str) -> None:
    choices = r"choose one of cifar10, cifar100, stl10, digits, .*folder:PATH"
    with pytest.raises(SettingsError, match=choices):
        open_source(dataset, Path("unused"), "train")


def test_torchvision_is_imported_only_where_needed() -> None:
    code = (
        "import pathlib, sys; from hetero_client.data import open_source; "
        "open_source('digits', pathlib.Path(), 'train'); sys.exit('torchvision' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
