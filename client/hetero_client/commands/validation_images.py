"""Labeled images that a device was not trained on, to choose its threshold with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from pydantic import ValidationError

from hetero_client.commands.trained_device import TrainedDevice
from hetero_client.data import open_validation
from hetero_client.data.partition import parse_cuts, parse_shard
from hetero_client.data.settings import DataSettings
from hetero_client.data.shard import Shard, load_validation
from hetero_common.agreement.plan import Plan
from hetero_common.errors import SettingsError
from hetero_common.records.rundir import SETTINGS_FILE


class TrainedOn(DataSettings, frozen=True, extra="ignore"):
    """Which images a client was trained on, as the settings in its run directory say."""

    shard: str
    cut_layers: str | None = None

    @classmethod
    def read(cls, run: Path) -> TrainedOn:
        """Read what the run in this directory was trained on.

        Raises:
            SettingsError: It does not say.
        """
        file = run / SETTINGS_FILE
        try:
            return cls.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError):
            raise SettingsError(
                f"{file} does not say which images were held out: give labeled images with "
                "--dataset folder:PATH"
            ) from None


@dataclass(frozen=True)
class ValidationImages:
    """The images, and where they are from, in words."""

    shard: Shard
    source: str


def held_out(run: Path, plan: Plan) -> ValidationImages:
    """Return what the client of a run has held out of its shard.

    Raises:
        SettingsError: It has held out none, or they cannot be read.
    """
    trained_on = TrainedOn.read(run)
    if trained_on.validation == 0:
        raise SettingsError(
            f"{run} has held out no images: train with --validation 0.1, or give labeled images "
            "with --dataset folder:PATH"
        )
    index, count = parse_shard(trained_on.shard)
    source = f"held out of shard {trained_on.shard} of {trained_on.dataset}"
    cuts = parse_cuts(trained_on.cut_layers, count)
    return ValidationImages(load_validation(trained_on, plan, index, count, cuts), source)


def labeled(dataset: str, device: TrainedDevice) -> ValidationImages:
    """The images `validation/<class>/*` of `folder:PATH`.

    Raises:
        SettingsError: There are none, they cannot be read, or have other classes than the device.
    """
    source = open_validation(dataset, device.classes)
    images = source.read(np.arange(len(source.labels)), device.plan.image_size)
    shard = Shard(images, torch.from_numpy(source.labels), source.classes)
    return ValidationImages(shard, f"validation images of {dataset}")
