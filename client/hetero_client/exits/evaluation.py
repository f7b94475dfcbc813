"""Accuracy of the exit, of the server, of both at the threshold, and of each class."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hetero_client.data.shard import Shard
from hetero_client.device_model import DeviceModel
from hetero_client.exits.rule import Answers, Criterion, ExitRule
from hetero_common.agreement.classwise import class_counts
from hetero_common.agreement.control import Evaluation

Predict = Callable[[Iterator[Tensor]], Iterator[Tensor]]
"""Activations (B, ...) in, the server's class probabilities (B, classes) out, in order."""


def ask_both(
    model: DeviceModel, images: Tensor, predict: Predict, rows: int
) -> tuple[Tensor, Tensor]:
    """Let exit and server answer all images (N, 3, S, S), `rows` at a time.

    Returns:
        Probabilities (N, classes) of the exit, and of the server.
    """
    exits: list[Tensor] = []

    def activations() -> Iterator[Tensor]:
        for part in torch.split(images, rows):
            activation, probabilities = model.infer(part)
            exits.append(probabilities)
            yield activation

    server = torch.cat(list(predict(activations())))
    return torch.cat(exits), server


def answer(
    model: DeviceModel,
    test: Shard,
    predict: Predict,
    rows: int,
    criterion: Criterion = "entropy",
) -> Answers:
    """Let exit and server answer every test image, `rows` at a time."""
    return Answers.of(*ask_both(model, test.images, predict, rows), test.labels, criterion)


def evaluate(
    model: DeviceModel,
    test: Shard,
    predict: Predict,
    *,
    rows: int,
    rule: ExitRule,
    round_: int,
) -> Evaluation:
    """Measure on `test` what a client reports after a round."""
    answers = answer(model, test, predict, rows, rule.criterion)
    point = answers.at(rule.threshold)
    return Evaluation(
        round=round_,
        samples=len(test.labels),
        exit_accuracy=answers.exit_accuracy,
        server_accuracy=answers.server_accuracy,
        threshold=rule.threshold,
        threshold_accuracy=point.accuracy,
        offload_share=point.offload_share,
        only_server_right=answers.only_server_right,
        curve=tuple(answers.curve()),
        class_samples=class_counts(test.labels, model.classes),
        exit_class_right=class_counts(test.labels[answers.exit_right], model.classes),
        server_class_right=class_counts(test.labels[answers.server_right], model.classes),
    )
