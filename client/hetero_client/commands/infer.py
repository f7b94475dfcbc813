"""hetero-infer: answer images with a trained device and, where it is not sure, its server.

hetero-infer --run runs/board-1 --threshold 0.4 --server host:50051 cat.png dog.png
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hetero_client.commands.calibrate import calibrate
from hetero_client.commands.trained_device import TrainedDevice
from hetero_client.data.images import decode, stack
from hetero_client.data.shard import Shard, load_test
from hetero_client.exits.chosen_threshold import read_calibration
from hetero_client.exits.evaluation import answer
from hetero_client.exits.offload import Answer, Inference, Source, in_batches
from hetero_client.exits.rule import DEFAULT_RULE, ExitRule
from hetero_client.settings import InferenceSettings
from hetero_common.agreement.control import OperatingPoint
from hetero_common.agreement.plan import Plan
from hetero_common.command import run_command
from hetero_common.errors import SettingsError


def main(flags: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run_command("hetero-infer", InferenceSettings, _run, flags)


def _run(settings: InferenceSettings) -> None:
    _check(settings)
    device = TrainedDevice(settings)
    if settings.calibrate:
        calibrate(settings, device)
    elif settings.curve and settings.dataset is not None:
        test = _test_images(settings, settings.dataset, device.plan)
        with device.connected(deadline=None) as predict:
            answers = answer(device.model, test, predict, device.rows, settings.wanted_criterion)
        _print_curve(answers.curve(), settings)
    else:
        _answer(settings, device)


def _check(settings: InferenceSettings) -> None:
    """Raise SettingsError where settings do not go together."""
    if settings.calibrate:
        if settings.images or settings.curve or settings.samples or settings.threshold is not None:
            raise SettingsError(
                "--calibrate chooses the threshold, and takes all images that there are for it: "
                "leave out image files, --curve, --samples and --threshold"
            )
        settings.target()
    elif settings.targets():
        raise SettingsError("--offload, --accuracy and --max-loss are for --calibrate: add it")
    elif bool(settings.images) == (settings.dataset is not None):
        raise SettingsError("give image files, or --dataset to answer a test split, but not both")
    elif settings.curve and settings.dataset is None:
        raise SettingsError("--curve needs labels: give a --dataset")
    if "confidence" in settings.model_fields_set and settings.max_loss is None:
        raise SettingsError("--confidence is that of --max-loss: give one, or leave it out")


def _answer(settings: InferenceSettings, device: TrainedDevice) -> None:
    rule, remark = _rule(settings)
    images, test = _inputs(settings, device.plan)
    with device.connected(settings.deadline_ms / 1000) as predict:
        inference = Inference(device.model, predict, rule)
        parts = in_batches(images, device.rows)
        given = [each for part in parts for each in inference.answer(part)]
    _print_answers(given, device.classes, settings, test)
    if remark:
        print(remark, file=_beside(settings))


def _rule(settings: InferenceSettings) -> tuple[ExitRule, str | None]:
    """Return the rule by which the exit answers, and where it is from if it was not said."""
    criterion = settings.wanted_criterion
    if settings.threshold is not None:
        return ExitRule(settings.threshold, criterion), None
    calibration = read_calibration(settings.run)
    if calibration is None:
        return replace(DEFAULT_RULE, criterion=criterion), None
    if settings.criterion not in (None, calibration.criterion):
        raise SettingsError(
            f"the threshold of {settings.run} was chosen for --criterion {calibration.criterion}: "
            f"choose one for {criterion} with --calibrate, or give --threshold"
        )
    remark = (
        f"threshold {calibration.threshold:.4g}, chosen by --calibrate for {calibration.target}"
    )
    return calibration.rule, remark


def _inputs(settings: InferenceSettings, plan: Plan) -> tuple[Tensor, Shard | None]:
    if settings.dataset is None:
        files = (decode(_read(path), str(path)) for path in settings.images)
        return stack(files, len(settings.images), plan.image_size), None
    test = _test_images(settings, settings.dataset, plan)
    return test.images, test


def _test_images(settings: InferenceSettings, dataset: str, plan: Plan) -> Shard:
    test = load_test(dataset, settings.data_dir, plan)
    return test.first(settings.samples) if settings.samples else test


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None


def _print_curve(points: list[OperatingPoint], settings: InferenceSettings) -> None:
    if settings.output == "json":
        for point in points:
            print(json.dumps(vars(point)))
        return
    table = Table(title="Accuracy versus offload")
    for heading in ("threshold", "offloaded", "accuracy"):
        table.add_column(heading, justify="right")
    for point in points:
        table.add_row(
            f"{point.threshold:.3f}", f"{point.offload_share:.1%}", f"{point.accuracy:.2%}"
        )
    Console().print(table)


def _print_answers(
    answers: list[Answer], classes: list[str], settings: InferenceSettings, test: Shard | None
) -> None:
    names = [str(path) for path in settings.images] or [str(i) for i in range(len(answers))]
    if settings.output == "json":
        for name, each in zip(names, answers, strict=True):
            fields = {"class": classes[each.label], "confidence": round(each.confidence, 4)}
            by = {"uncertainty": round(each.uncertainty, 4), "source": each.source.value}
            print(json.dumps({"image": name} | fields | by))
    elif test is None:
        Console().print(_answer_table(names, answers, classes))
    if test is not None:
        print(_summary(answers, test), file=_beside(settings))


def _beside(settings: InferenceSettings) -> TextIO:
    """Return the stream for sentences that are not part of the output."""
    return sys.stderr if settings.output == "json" else sys.stdout


def _answer_table(names: list[str], answers: list[Answer], classes: list[str]) -> Table:
    table = Table()
    for heading in ("image", "class", "confidence", "uncertainty", "answered by"):
        table.add_column(heading)
    for name, each in zip(names, answers, strict=True):
        numbers = (f"{each.confidence:.1%}", f"{each.uncertainty:.3f}")
        table.add_row(name, classes[each.label], *numbers, each.source.value)
    return table


def _summary(answers: list[Answer], test: Shard) -> str:
    right = torch.tensor([each.label for each in answers]) == test.labels
    by = Counter(each.source for each in answers)
    shares = ", ".join(f"{source.value} {by[source] / len(answers):.1%}" for source in Source)
    return f"accuracy {float(right.double().mean()):.2%} of {len(answers)} images; {shares}"


if __name__ == "__main__":
    sys.exit(main())
