"""Mean and standard deviation per channel, which the server decides for all clients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from hetero_common.errors import SettingsError

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Normalization:
    """Scales pixels to about zero mean and unit variance.

    Args:
        mean: Of red, green and blue pixels in 0..1.
        std: Likewise, > 0.

    Raises:
        SettingsError: A number is not finite, or a standard deviation not positive.
    """

    mean: Channels
    std: Channels

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.mean + self.std)) or min(self.std) <= 0:
            raise SettingsError(
                f"normalization {self} is impossible: all six numbers must be finite, and the "
                "last three, the standard deviations, positive"
            )

    def __str__(self) -> str:
        """The form that `parse` reads."""
        return "/".join(",".join(map(str, channels)) for channels in (self.mean, self.std))

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Normalize uint8 images (B, 3, H, W) to float32."""
        mean, std = (
            255 * torch.tensor(channels, dtype=torch.float32, device=images.device).view(3, 1, 1)
            for channels in (self.mean, self.std)
        )
        return (images - mean).div_(std)


KNOWN = {
    "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": Normalization((0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
    "digits": Normalization((0.3057, 0.3057, 0.3057), (0.3237, 0.3237, 0.3237)),
    "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Of the train splits; `digits` upscaled to 32x32."""


def parse(text: str) -> Normalization:
    """Read a known name, or six numbers `r,g,b/r,g,b`: means, then standard deviations.

    Raises:
        SettingsError: It is neither, or the numbers are impossible.
    """
    if text in KNOWN:
        return KNOWN[text]
    try:
        mean, std = text.split("/")
        (r, g, b), (dr, dg, db) = map(float, mean.split(",")), map(float, std.split(","))
    except ValueError as error:
        raise SettingsError(
            f"normalization {text!r} is unknown: choose one of {', '.join(KNOWN)}, or give means "
            "and standard deviations in 0..1 as r,g,b/r,g,b"
        ) from error
    return Normalization((r, g, b), (dr, dg, db))
