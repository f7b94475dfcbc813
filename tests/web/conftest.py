"""Real processes for the tests of this folder, and what looks at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support.browser_page import LiveRun
from support.processes import Launch, launch

__all__ = ["launch"]


@pytest.fixture(scope="module")
def live_run(launch: Launch) -> Iterator[LiveRun]:
    with ExitStack() as stack:
        yield LiveRun(launch, stack)
