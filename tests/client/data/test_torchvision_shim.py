from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BROKEN_TORCHVISION = """
import torch
from . import extension
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
import torchvision.extension
torchvision.extension.imports.append("whole")
"""


def import_shim(torchvision_source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(torchvision_source)
    (package / "extension.py").write_text("imports = []")
    code = (
        "from hetero_client.data.torchvision_shim import torchvision; "
        "print(torchvision.extension.imports)"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_torchvision_is_imported_without_its_compiled_library(tmp_path: Path) -> None:
    result = import_shim(BROKEN_TORCHVISION, tmp_path)
    assert result.stdout == "['whole']\n", result.stderr


def test_other_failures_of_torchvision_are_not_hidden(tmp_path: Path) -> None:
    result = import_shim("raise RuntimeError('another reason')", tmp_path)
    assert result.stderr.endswith("RuntimeError: another reason\n")
