"""Real processes for the tests of this folder."""

from __future__ import annotations

from support.processes import Finished, Launch, Process, launch

__all__ = ["Finished", "Launch", "Process", "launch"]
