from __future__ import annotations

import pytest
import torch
from torch import nn

from hetero_common.models.layers import conv_bn, conv_bn_relu


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize(("stride", "out"), [(1, (9, 12)), (2, (5, 6))])
def test_odd_kernels_keep_the_resolution_or_halve_it(
    kernel_size: int, stride: int, out: tuple[int, int]
) -> None:
    layer = conv_bn(3, 8, kernel_size, stride=stride)
    assert layer(torch.randn(2, 3, 9, 12)).shape == (2, 8, *out)


def test_weights_are_drawn_for_the_channels_that_go_out() -> None:
    torch.manual_seed(0)
    conv, bn = conv_bn(8, 64, 3)
    assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)
    assert conv.bias is None
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert (bn.weight == 1).all() and (bn.bias == 0).all()


def test_each_group_of_channels_has_a_convolution_of_its_own() -> None:
    layer = conv_bn(4, 4, 3, groups=4).eval()
    x = torch.randn(1, 4, 6, 6)
    changed = x.clone()
    changed[:, 0] += 1
    differs = (layer(x) != layer(changed)).any(dim=(0, 2, 3))
    assert differs.tolist() == [True, False, False, False]


@pytest.mark.parametrize(("relu", "largest"), [(nn.ReLU, 100.0), (nn.ReLU6, 6.0)])
def test_the_rectifier_works_on_what_batchnorm_has_put_out(
    relu: type[nn.ReLU] | type[nn.ReLU6], largest: float
) -> None:
    layer = conv_bn_relu(1, 1, 1, relu=relu)
    nn.init.ones_(layer.get_parameter("conv.weight"))
    x = torch.tensor([-100.0, 0.0, 3.0, 100.0]).view(1, 1, 2, 2)
    sent = x.clone()
    out = layer.eval()(x).flatten()
    torch.testing.assert_close(out, torch.tensor([0.0, 0.0, 3.0, largest]), rtol=1e-4, atol=1e-4)
    assert torch.equal(x, sent)
