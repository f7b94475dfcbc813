"""Settings of hetero-sim."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from hetero_client.data.partition import parse_cuts
from hetero_client.data.settings import DataSettings
from hetero_client.exits.settings import ExitSettings
from hetero_common.agreement.plan import Plan
from hetero_lab.method import METHODS
from hetero_server.settings import RunSettings


class SimulationSettings(RunSettings, DataSettings, ExitSettings, Plan, frozen=True):
    """Train many clients and their server in one process, without sockets."""

    method: Annotated[str, METHODS] = "split"
    """Heterogeneous split training, or what it is held against, with the same recipe, data and
    number of images."""
    clients: int = Field(3, ge=1)
    """Number of clients; each gets one shard."""
    cut_layers: str = "3,4,5"
    """Cut layers, separated by commas and dealt out to the clients in turn."""

    @field_validator("cut_layers")
    @classmethod
    def _numbers(cls, text: str) -> str:
        parse_cuts(text, 1)
        return text

    def cuts(self) -> list[int]:
        """Cut layer of each client."""
        return parse_cuts(self.cut_layers, self.clients)
