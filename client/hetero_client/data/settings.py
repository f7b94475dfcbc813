"""Settings of the images of a client, and of how they are dealt out; the simulator has them too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from hetero_client.data.dealing import Dealing
from hetero_client.data.partition import MIN_SHARD_SIZE
from hetero_client.data.source import DATASETS


class DataSettings(BaseModel, frozen=True, use_attribute_docstrings=True):
    """Which images, and how they are dealt out."""

    dataset: Annotated[str, DATASETS] = "cifar10"
    """The images."""
    data_dir: Path = Path("data")
    """Where cifar10, cifar100 and stl10 are kept, or downloaded to on first use."""
    partition: Literal["iid", "dirichlet"] = "iid"
    """How the training images are dealt out to shards: evenly, or with label skew."""
    alpha: float = Field(0.5, gt=0)
    """Concentration of the dirichlet partition; the lower, the more skewed."""
    min_shard: int = Field(MIN_SHARD_SIZE, ge=MIN_SHARD_SIZE)
    """Images that each shard gets at least, at the cost of the largest; the run's batch size, and
    what --validation holds out on top of it, lets every shard fill a batch."""
    size_spread: float = Field(0.0, ge=0, le=5)
    """Spread of the shards' sizes, the standard deviation of their logarithm; 0: as the partition
    has them."""
    cut_skew: float = Field(0.0, ge=0, le=1)
    """Share of the images that go by their class to the clients of one cut layer only: with 1,
    devices of different cut layers see different classes. On a client it takes --cut-layers."""
    validation: float = Field(0.0, ge=0, lt=1)
    """Share of a shard that is not trained on: images to choose a threshold on (--calibrate)."""

    def dealing(self) -> Dealing:
        """The rules by which the training images are dealt out."""
        alpha = self.alpha if self.partition == "dirichlet" else None
        return Dealing(alpha, self.min_shard, self.size_spread, self.cut_skew)
