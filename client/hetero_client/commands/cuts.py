"""What each cut layer costs a device: the table behind `hetero-client --list-cuts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hetero_common.models.exits import build_exit
from hetero_common.models.split import activation_shapes, evaluation, named_layers, split_model
from hetero_common.tensors.codec import ITEM_BYTES, payload_bytes

_CAPTION = (
    "cut: the client's last layer; params: of the client's layers, exit: of its exit head; "
    "MMAC: million multiply-accumulates per image, share: of the whole model's; "
    "fp32 to int8: KiB per image on the wire"
)


@dataclass(frozen=True)
class CutRow:
    """One cut layer."""

    cut_layer: int
    name: str
    """Name of that layer, the client's last."""
    prefix_parameters: int
    exit_parameters: int
    """Parameters of the exit head, which come on top of the prefix's."""
    prefix_macs: int
    """Multiply-accumulates of one image's forward pass; training takes about three times that."""
    macs_share: float
    """The prefix's part, 0..1, of the whole model's multiply-accumulates."""
    activation_shape: tuple[int, ...]
    """Without the batch dimension."""
    sample_bytes: Mapping[str, int]
    """Payload of one sample's activation, per wire dtype."""


def cut_table(
    model: nn.Sequential, image_size: int, num_classes: int, exit_head: str = "linear"
) -> list[CutRow]:
    """One row for each cut layer 1..L-1.

    Raises:
        SettingsError: The model cannot take images of this size.
    """
    names = [name for name, _ in named_layers(model)]
    shapes = activation_shapes(model, image_size)
    macs = list(accumulate(_layer_macs(model, [(3, image_size, image_size), *shapes[:-1]])))
    return [
        CutRow(
            cut_layer=cut_layer,
            name=names[cut_layer - 1],
            prefix_parameters=_num_parameters(split_model(model, cut_layer)[0]),
            exit_parameters=_num_parameters(build_exit(exit_head, shape, num_classes)),
            prefix_macs=macs[cut_layer - 1],
            macs_share=macs[cut_layer - 1] / macs[-1],
            activation_shape=shape,
            sample_bytes={dtype: payload_bytes(shape, dtype) for dtype in ITEM_BYTES},
        )
        for cut_layer, shape in enumerate(shapes[:-1], start=1)
    ]


def render(rows: list[CutRow]) -> Table:
    """The rows as a table that fits a terminal of 80 columns for the common models."""
    table = Table(box=None, padding=(0, 1, 0, 0), caption=_CAPTION, caption_justify="left")
    table.add_column("cut", justify="right")
    table.add_column("layer")
    wire_dtypes = rows[0].sample_bytes
    for heading in ("params", "exit", "MMAC", "share", "activation", *wire_dtypes):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row.cut_layer),
            row.name,
            f"{row.prefix_parameters:,}",
            f"{row.exit_parameters:,}",
            f"{row.prefix_macs / 1e6:,.1f}",
            f"{row.macs_share:.1%}",
            "x".join(map(str, row.activation_shape)),
            *(f"{size / 1024:,.1f}" for size in row.sample_bytes.values()),
        )
    return table


def _layer_macs(model: nn.Sequential, input_shapes: list[tuple[int, ...]]) -> list[int]:
    """Multiply-accumulates of each layer on one sample of its input shape."""
    macs = []
    with evaluation(model):
        for layer, shape in zip(model, input_shapes, strict=True):
            with FlopCounterMode(display=False) as counter:
                layer(torch.zeros(1, *shape))
            macs.append(counter.get_total_flops() // 2)
    return macs


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
