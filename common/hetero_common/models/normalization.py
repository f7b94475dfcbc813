"""Mean and standard deviation per channel, which the server decides for all clients."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Protocol

import torch

from hetero_common.errors import SettingsError
from hetero_common.registry import Registry

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


def _are_numbers(text: str) -> bool:
    """Whether a text has the form of means and standard deviations, `r,g,b/r,g,b`."""
    numbers = r"[^,/]+,[^,/]+,[^,/]+"
    return re.fullmatch(f"{numbers}/{numbers}", text) is not None


class Normalizes(Protocol):
    """What scales the pixels of images before the first layer."""

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Normalize uint8 images (B, 3, H, W) to float32."""


NORMALIZATIONS: Registry[Normalizes] = Registry(
    "normalization",
    takes=_are_numbers,
    takes_form="mean and deviation as r,g,b/r,g,b",
)

for _name, _summary, _mean, _std in (
    ("cifar10", "of its train split", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ("cifar100", "of its train split", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ("stl10", "of its train split", (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
    ("digits", "upscaled to 32x32", (0.3057, 0.3057, 0.3057), (0.3237, 0.3237, 0.3237)),
    ("imagenet", "as torchvision's models take it", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
):
    NORMALIZATIONS.add(_name, _summary)(Normalization(_mean, _std))


def parse(text: str) -> Normalizes:
    """Read a name, or six numbers `r,g,b/r,g,b`: means, then standard deviations.

    Raises:
        SettingsError: It is neither, or the numbers are impossible.
    """
    if not _are_numbers(text):
        return NORMALIZATIONS[text]
    mean, std = text.split("/")
    try:
        (r, g, b), (dr, dg, db) = map(float, mean.split(",")), map(float, std.split(","))
    except ValueError:
        raise SettingsError(
            f"normalization {text!r} holds something else than numbers: give means and standard "
            "deviations in 0..1 as r,g,b/r,g,b"
        ) from None
    return Normalization((r, g, b), (dr, dg, db))


def check(text: str) -> str:
    """The text, if it names a normalization or gives possible numbers; nothing is imported.

    Raises:
        ValueError: It does neither.
    """
    NORMALIZATIONS.checked(text)
    if _are_numbers(text):
        try:
            parse(text)
        except SettingsError as error:
            raise ValueError(str(error)) from None
    return text
