"""docs/settings.md is what the settings models say, every field of every command."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hetero_common.settings import Settings
from hetero_lab import reference

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_up_to_date() -> None:
    # In a process of its own: other tests declare things of their own, which would be listed.
    command = [sys.executable, "-m", "hetero_lab.reference"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    assert PAGE.read_text(encoding="utf-8") == done.stdout, (
        "the settings have changed: run `python -m hetero_lab.reference > docs/settings.md`"
    )


@pytest.mark.parametrize(("command", "settings"), reference.COMMANDS.items())
def test_each_setting_has_one_row_with_a_meaning(command: str, settings: type[Settings]) -> None:
    section = reference.reference().partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    names = [re.findall(r"\w+(?:-\w+)*", row)[0].replace("-", "_").lower() for row in rows]
    assert sorted(names) == sorted(settings.model_fields)
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == 4 and all(cells), row
