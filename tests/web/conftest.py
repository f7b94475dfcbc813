"""Real processes for the tests of this folder, and what looks at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support.browser_page import Stage
from support.processes import Launch, launch

__all__ = ["launch"]


@pytest.fixture(scope="module")
def stage(launch: Launch) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(launch, stack)
