"""What is looked at: a run that is trained, or a model that is only served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hetero_common.agreement.plan import Plan
from hetero_server.run.member import Member
from hetero_server.run.phase import Phase


class Watched(Protocol):
    """The side of a run that the monitor reads; `Engine` and `ServedModel` have it."""

    @property
    def plan(self) -> Plan:
        """The agreement of the run."""

    @property
    def phase(self) -> Phase:
        """The phase that the run is in."""

    @property
    def round(self) -> int:
        """The current round, counted from 0."""

    @property
    def members(self) -> Mapping[str, Member]:
        """The clients of the run by their ids."""

    @property
    def held_bytes(self) -> int:
        """Bytes of the weights and optimizer states that the server holds."""
