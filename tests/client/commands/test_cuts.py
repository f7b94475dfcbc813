from __future__ import annotations

import copy

import pytest
import torch
from rich.console import Console

from hetero_client.commands.cuts import CutRow, cut_table, render
from hetero_common.errors import SettingsError
from hetero_common.models import build_model


@pytest.fixture(scope="module")
def resnet18_rows() -> list[CutRow]:
    return cut_table(build_model("resnet18", num_classes=10), image_size=32, num_classes=10)


# Cut after the stem and after each stage, worked out by hand from the layers' shapes: a 3x3
# convolution of c to c' channels takes 9 * c * c' multiply-accumulates per output pixel.
@pytest.mark.parametrize(
    ("cut_layer", "name", "parameters", "macs", "share", "shape"),
    [
        (1, "stem", 1_856, 1_769_472, 0.003, (64, 32, 32)),
        (3, "block2", 149_824, 152_764_416, 0.275, (64, 32, 32)),
        (5, "block4", 675_392, 286_982_144, 0.517, (128, 16, 16)),
        (7, "block6", 2_775_104, 421_199_872, 0.758, (256, 8, 8)),
        (9, "block8", 11_168_832, 555_417_600, 1.000, (512, 4, 4)),
    ],
)
def test_resnet18_at_32x32(
    resnet18_rows: list[CutRow],
    cut_layer: int,
    name: str,
    parameters: int,
    macs: int,
    share: float,
    shape: tuple[int, ...],
) -> None:
    row = resnet18_rows[cut_layer - 1]
    assert (row.cut_layer, row.name, row.activation_shape) == (cut_layer, name, shape)
    assert (row.prefix_parameters, row.prefix_macs) == (parameters, macs)
    assert row.macs_share == pytest.approx(share, abs=5e-4)


def test_shares_are_of_the_whole_model_with_its_head(resnet18_rows: list[CutRow]) -> None:
    last = resnet18_rows[-1]
    assert last.prefix_macs / last.macs_share == pytest.approx(555_417_600 + 512 * 10)


def test_one_row_per_cut_layer_and_each_deeper_one_computes_more(
    resnet18_rows: list[CutRow],
) -> None:
    assert [row.cut_layer for row in resnet18_rows] == list(range(1, 10))
    macs = [row.prefix_macs for row in resnet18_rows]
    assert macs == sorted(set(macs))


def test_bytes_and_exit_head_follow_the_activation(resnet18_rows: list[CutRow]) -> None:
    row = resnet18_rows[4]
    assert row.sample_bytes == {"fp32": 131_072, "bf16": 65_536, "fp16": 65_536, "int8": 32_768}
    assert row.exit_parameters == 128 * 10 + 10


def test_macs_are_of_the_image_size() -> None:
    model = build_model("tinycnn", num_classes=3, width=8)
    small, large = (cut_table(model, size, num_classes=3) for size in (16, 32))
    assert [4 * row.prefix_macs for row in small] == [row.prefix_macs for row in large]


def test_the_model_stays_as_it_is() -> None:
    model = build_model("tinycnn", num_classes=3, width=8)
    model[1].eval()
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    cut_table(model, image_size=16, num_classes=3)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


def test_a_model_that_can_not_take_the_images() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 10))
    with pytest.raises(SettingsError, match="cannot take images of 16x16"):
        cut_table(model, image_size=16, num_classes=10)


def test_the_table_is_readable_on_a_terminal_of_80_columns(resnet18_rows: list[CutRow]) -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(render(resnet18_rows))
    line = next(text for text in captured.get().splitlines() if "block4" in text)
    assert line.split() == [
        *("5", "block4", "675,392", "1,290", "287.0", "51.7%", "128x16x16"),
        *("128.0", "64.0", "64.0", "32.0"),
    ]
