from __future__ import annotations

import pytest
from pydantic import ValidationError

from hetero_client.data.dealing import Dealing
from hetero_client.data.partition import MIN_SHARD_SIZE
from hetero_client.data.settings import DataSettings


def test_images_are_dealt_out_evenly_unless_something_else_is_asked_for() -> None:
    even = Dealing(alpha=None, min_size=MIN_SHARD_SIZE, size_spread=0.0, cut_skew=0.0)
    assert DataSettings().dealing() == even


def test_alpha_counts_with_the_dirichlet_partition_only() -> None:
    assert DataSettings(alpha=0.1).dealing().alpha is None
    assert DataSettings(partition="dirichlet", alpha=0.1).dealing().alpha == 0.1


def test_the_other_rules_are_passed_on() -> None:
    settings = DataSettings(min_shard=40, size_spread=0.5, cut_skew=0.7)
    assert settings.dealing() == Dealing(None, 40, 0.5, 0.7)


@pytest.mark.parametrize(
    ("name", "value"),
    [("alpha", 0), ("min_shard", MIN_SHARD_SIZE - 1), ("cut_skew", 1.1), ("validation", 1.0)],
)
def test_what_cannot_be_dealt_out_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        DataSettings.model_validate({name: value})
