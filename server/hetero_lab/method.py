"""What hetero-sim can train: heterogeneous split training, and what it is held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hetero_common.registry import Registry


@dataclass(frozen=True)
class Method:
    """One of them.

    Attributes:
        prepare: Takes the settings of hetero-sim, loads and checks everything, and gives the
            training; see `hetero_lab.methods.base`.
        adapt: What it makes of the settings that were given.
        has_clients: Who takes part are clients, each with a model of its own.
        has_server: The clients send activations to a server.
        has_exits: Something is trained that answers from an exit.
    """

    prepare: Callable[[Any], Callable[..., None]]
    adapt: Callable[[Any], Any] = lambda settings: settings
    has_clients: bool = True
    has_server: bool = True
    has_exits: bool = True


METHODS: Registry[Method] = Registry("method", found_in="hetero_lab.methods")
"""The files of `hetero_lab.methods` declare themselves to it."""
