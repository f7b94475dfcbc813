"""Presets: settings of the method by name. Whatever is set otherwise goes before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The defaults themselves.
    "default": {},
    # The plain method, as far as it is known (docs/method.md): one light exit per client, no
    # gradient from the server, no aggregation among clients, that of the server's layers now and
    # then. What is not known of it has the values that were usual where it was compared.
    "paper": {
        "strategy": "sequential",
        "order": "arrival",
        "exits": "last",
        "exit_head": "linear",
        "feedback": "none",
        "client_aggregation": "none",
        "wire": "fp32",
        "weights_wire": "fp32",
        "aggregate_every": 1,
        "steps_per_round": 0,
        "batch_size": 32,
        "client_lr": 0.05,
        "server_lr": 0.05,
    },
}
