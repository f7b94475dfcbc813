"""Tensors on their way, and averages of them.

Activations as bytes, weights as files and as what a round has changed of them, averages of layers
over all who hold them. Nothing here knows a network, a run or a device.
"""

from __future__ import annotations

from hetero_common.tensors.aggregation import (
    BATCHES_TRACKED,
    RUNNING_MEAN,
    RUNNING_VARIANCE,
    LayerStates,
    cross_layer_average,
)
from hetero_common.tensors.codec import (
    ITEM_BYTES,
    LARGEST_ACTIVATION,
    WIRE_DTYPES,
    Payload,
    channels,
    payload_bytes,
    round_trip,
)
from hetero_common.tensors.weight_delta import pack, unpack
from hetero_common.tensors.weights import (
    Weights,
    layer_states,
    load_states,
    numbered,
    read_file,
    tensors_from_bytes,
    tensors_to_bytes,
)

__all__ = [
    "BATCHES_TRACKED",
    "ITEM_BYTES",
    "LARGEST_ACTIVATION",
    "RUNNING_MEAN",
    "RUNNING_VARIANCE",
    "WIRE_DTYPES",
    "LayerStates",
    "Payload",
    "Weights",
    "channels",
    "cross_layer_average",
    "layer_states",
    "load_states",
    "numbered",
    "pack",
    "payload_bytes",
    "read_file",
    "round_trip",
    "tensors_from_bytes",
    "tensors_to_bytes",
    "unpack",
]
