from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hetero_common.errors import SettingsError
from hetero_common.models.normalization import NORMALIZATIONS, Normalization, parse

means = st.tuples(*[st.floats(-10, 10)] * 3)
stds = st.tuples(*[st.floats(1e-3, 10)] * 3)


@pytest.mark.parametrize("name", NORMALIZATIONS.names())
def test_known_names_are_read(name: str) -> None:
    assert parse(name) is NORMALIZATIONS[name]


@given(means, stds)
def test_what_is_printed_is_read_back(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    normalization = Normalization(mean, std)
    assert parse(str(normalization)) == normalization


@pytest.mark.parametrize("text", ["", "mnist", "0.5", "0,0,0", "0,0/1,1", "a,b,c/1,1,1", "1/2/3"])
def test_anything_else_names_the_choices(text: str) -> None:
    with pytest.raises(SettingsError, match=r"normalization .*r,g,b/r,g,b"):
        parse(text)


@pytest.mark.parametrize("text", ["0,0,0/1,0,1", "0,0,0/1,1,-1", "nan,0,0/1,1,1", "0,0,0/inf,1,1"])
def test_impossible_numbers_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="must be finite, and the last three"):
        parse(text)


def test_apply_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    normalization = NORMALIZATIONS["cifar10"]
    assert isinstance(normalization, Normalization)
    expected = torch.stack(
        [
            (images[:, channel].double() / 255 - mean) / std
            for channel, (mean, std) in enumerate(
                zip(normalization.mean, normalization.std, strict=True)
            )
        ],
        dim=1,
    )
    result = normalization.apply(images)
    assert result.dtype is torch.float32
    torch.testing.assert_close(result, expected.float(), rtol=1e-5, atol=1e-6)


def test_apply_leaves_its_input_alone() -> None:
    images = torch.full((1, 3, 2, 2), 7, dtype=torch.uint8)
    NORMALIZATIONS["imagenet"].apply(images)
    assert images.eq(7).all()
