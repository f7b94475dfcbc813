"""The steps of a round as a run records them: in their order, successive ones as `first-last`."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RUN = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7}))?")


def steps_to_text(steps: Sequence[int]) -> str:
    """Steps in their order: `0-7`, `0-2,5,5`, and an empty text for none."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][1] + 1:
            runs[-1][1] = step
        else:
            runs.append([step, step])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def steps_from_text(text: str) -> list[int]:
    """The steps again.

    Raises:
        ValueError: It is not what `steps_to_text` writes.
    """
    steps: list[int] = []
    for part in text.split(",") if text else ():
        run = _RUN.fullmatch(part)
        if run is None:
            raise ValueError(f"{part!r} names no steps")
        steps.extend(range(int(run[1]), int(run[2] or run[1]) + 1))
    return steps
