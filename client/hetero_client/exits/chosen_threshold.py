"""The threshold chosen for a device, and what it is worth, as its run directory keeps it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError
from torch import Tensor
from typing_extensions import Self

from hetero_client.exits.reliability import auroc, calibration_error
from hetero_client.exits.rule import Answers, Criterion, ExitRule
from hetero_client.exits.thresholds import Target, lost_images, upper_bound
from hetero_common.errors import SettingsError
from hetero_common.records.rundir import MODEL_FILE, write_whole

CALIBRATION_FILE = "calibration.json"


class Calibration(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A threshold, what it was chosen for and on, and what it gives on these images.

    Accuracies and shares are in [0, 1].

    Attributes:
        threshold: Largest uncertainty that the exit answers at.
        criterion: What the uncertainty is.
        target: What it was chosen for.
        source: Where the images are from.
        model: SHA-256 of the device's weights file.
        images: How many there are.
        exit_accuracy: Of the exit alone.
        server_accuracy: Of the server alone.
        accuracy: Of both together at the threshold.
        offload_share: Share that the server answers then.
        lost_share: Share that the exit answers wrong and the server would have answered right.
        lost_at_most: Of all images like these, with the confidence of the target; None without.
        exit_auroc: How well the uncertainty ranks the exit's right answers before its wrong ones;
            None where it has no answers of one kind.
        exit_calibration_error: Expected calibration error of the exit.
        server_calibration_error: Of the server.
    """

    threshold: float = Field(ge=-1, le=1)
    criterion: Criterion = "entropy"
    target: Target
    source: str
    model: str
    images: int
    exit_accuracy: float
    server_accuracy: float
    accuracy: float
    offload_share: float
    lost_share: float
    lost_at_most: float | None
    exit_auroc: float | None
    exit_calibration_error: float
    server_calibration_error: float

    @classmethod
    def of(
        cls,
        exit_: Tensor,
        server: Tensor,
        labels: Tensor,
        target: Target,
        criterion: Criterion = "entropy",
        *,
        source: str,
        model: str,
    ) -> Self:
        """Choose from the probabilities (N, classes) of exit and server, and labels (N,).

        Raises:
            SettingsError: The target cannot be reached.
        """
        answers, images = Answers.of(exit_, server, labels, criterion), len(labels)
        point = answers.at(target.choose(answers))
        lost = lost_images(answers, point.threshold)
        return cls(
            threshold=point.threshold,
            criterion=criterion,
            target=target,
            source=source,
            model=model,
            images=images,
            exit_accuracy=answers.exit_accuracy,
            server_accuracy=answers.server_accuracy,
            accuracy=point.accuracy,
            offload_share=point.offload_share,
            lost_share=lost / images,
            lost_at_most=_lost_at_most(lost, images, point.threshold, target),
            exit_auroc=auroc(-answers.uncertainty, answers.exit_right),
            exit_calibration_error=calibration_error(exit_.amax(dim=1), answers.exit_right),
            server_calibration_error=calibration_error(server.amax(dim=1), answers.server_right),
        )

    @property
    def rule(self) -> ExitRule:
        """The threshold, and what it is of."""
        return ExitRule(self.threshold, self.criterion)

    def write(self, run: Path) -> None:
        """Keep it in the run directory, in place of the one before.

        Raises:
            SettingsError: It cannot be written.
        """
        try:
            write_whole(run / CALIBRATION_FILE, self.model_dump_json(indent=2).encode())
        except OSError as error:
            raise SettingsError(
                f"{run / CALIBRATION_FILE} cannot be written: {error.strerror}"
            ) from None


def read_calibration(run: Path) -> Calibration | None:
    """Return what is kept in the run directory, if anything is.

    Raises:
        SettingsError: It is damaged, or made for other weights than the directory holds.
    """
    path = run / CALIBRATION_FILE
    try:
        calibration = Calibration.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise SettingsError(
            f"{path} cannot be read: run hetero-infer --calibrate again, or give --threshold"
        ) from None
    if calibration.model != digest(run):
        raise SettingsError(
            f"{path} is of other weights than {MODEL_FILE}: run hetero-infer --calibrate again, or "
            "give --threshold"
        )
    return calibration


def digest(run: Path) -> str:
    """SHA-256 of the weights in a finished run directory."""
    return hashlib.sha256((run / MODEL_FILE).read_bytes()).hexdigest()


def _lost_at_most(lost: int, images: int, threshold: float, target: Target) -> float | None:
    if target.confidence is None:
        return None
    if threshold < 0:  # the exit answers nothing, so chance has no part in it
        return 0.0
    return upper_bound(lost, images, target.confidence)
