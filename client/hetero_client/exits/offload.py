"""Inference on a device: the exit answers when it is sure, else the server, else the exit again."""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hetero_client.device_model import DeviceModel
from hetero_client.exits.evaluation import Predict
from hetero_client.exits.rule import ExitRule, exits_early
from hetero_common.errors import ServerUnreachable

log = logging.getLogger(__name__)


class Source(enum.Enum):
    """Who answered."""

    EXIT = "exit"
    SERVER = "server"
    DEGRADED = "degraded"
    """The exit, although it was not sure: the server was gone or late."""


@dataclass(frozen=True)
class Answer:
    """The answer to one image.

    Attributes:
        label: Class number.
        confidence: Probability of that class, by whoever answered.
        uncertainty: Of the exit, in [0, 1].
    """

    label: int
    confidence: float
    uncertainty: float
    source: Source


class Inference:
    """Answers images with one device's model.

    Args:
        model: Prefix and exit, trained.
        predict: Asks the server; raises ServerUnreachable when it is gone or late.
        rule: When the exit answers.
    """

    def __init__(self, model: DeviceModel, predict: Predict, rule: ExitRule) -> None:
        self._model = model
        self._predict = predict
        self._rule = rule
        self._is_alone = False

    def answer(self, images: Tensor) -> list[Answer]:
        """Answer a batch of uint8 images (B, 3, S, S); what is not sure goes out in one request."""
        activation, probabilities = self._model.infer(images)
        uncertainty = self._rule.uncertainty(probabilities)
        local = exits_early(uncertainty, self._rule.threshold)
        sources = [Source.EXIT if sure else Source.SERVER for sure in local.tolist()]
        if not bool(local.all()):
            offloaded = ~local
            try:
                answers = list(self._predict(iter([activation[offloaded]])))
                probabilities[offloaded] = torch.cat(answers)
                self._is_alone = False
            except ServerUnreachable as error:
                self._tell(error)
                sources = [Source.EXIT if sure else Source.DEGRADED for sure in local.tolist()]
        confidence, label = probabilities.max(dim=1)
        rows = zip(label.tolist(), confidence.tolist(), uncertainty.tolist(), sources, strict=True)
        return [Answer(*row) for row in rows]

    def _tell(self, error: ServerUnreachable) -> None:
        """Once, and not with each batch, until the server has answered again."""
        level = logging.DEBUG if self._is_alone else logging.WARNING
        log.log(level, "answering from the exit: %s", error)
        self._is_alone = True


def in_batches(images: Tensor, rows: int) -> Iterator[Tensor]:
    """Split (N, ...) into parts of at most `rows` images."""
    yield from torch.split(images, rows)
