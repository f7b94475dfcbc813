"""hetero-infer: answer images with a trained device and, where it is not sure, its server.

hetero-infer --run runs/board-1 --threshold 0.4 --server host:50051 cat.png dog.png
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hetero_client.data.images import decode, stack
from hetero_client.device_model import DeviceModel
from hetero_client.evaluation import answer
from hetero_client.inference import Answer, Inference, Source, in_batches
from hetero_client.settings import InferenceSettings
from hetero_client.shards import load_test
from hetero_client.trainer import Shard
from hetero_client.transport import ServerLink
from hetero_common.command import run_command
from hetero_common.compute import Compute
from hetero_common.control import OperatingPoint
from hetero_common.errors import RefusedInput, SettingsError
from hetero_common.plan import Plan
from hetero_common.rundir import MODEL_FILE, read_plan
from hetero_common.weights import read_file


def main(flags: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run_command("hetero-infer", InferenceSettings, _run, flags)


def _run(settings: InferenceSettings) -> None:
    if bool(settings.images) == (settings.dataset is not None):
        raise SettingsError("give image files, or --dataset to answer a test split, but not both")
    if settings.curve and settings.dataset is None:
        raise SettingsError("--curve needs labels: give a --dataset")
    device = TrainedDevice(settings)
    images, test = _inputs(settings, device.plan)
    with ServerLink(
        settings.server,
        wire_dtype=device.plan.wire,
        certs=settings.certs,
        token=settings.resolved_token(),
        insecure=settings.insecure,
    ) as link:
        device.link = link
        if settings.curve and test is not None:
            rows = min(settings.batch_size, device.plan.predict_rows)
            answers = answer(device.model, test, device.predict, rows)
            _print_curve(answers.curve(), settings)
        else:
            inference = Inference(device.model, device.predict, settings.threshold)
            parts = in_batches(images, min(settings.batch_size, device.plan.predict_rows))
            given = [each for part in parts for each in inference.answer(part)]
            _print_answers(given, device.classes, settings, test)


class TrainedDevice:
    """What a client's finished run directory holds, ready to answer.

    Raises:
        SettingsError: The directory holds no finished client run.
    """

    def __init__(self, settings: InferenceSettings) -> None:
        self.plan = read_plan(settings.run)
        weights, metadata = read_file(settings.run / MODEL_FILE)
        if "cut_layer" not in metadata:
            raise SettingsError(f"{settings.run} is a server's run: name the run of a client")
        compute = Compute(settings.device, self.plan.precision)
        self.model = DeviceModel(self.plan, int(metadata["cut_layer"]), compute)
        try:
            weights.require_like(self.model.weights())
        except RefusedInput:
            raise SettingsError(f"{settings.run} does not hold a device of its plan") from None
        self.model.load(weights)
        self.classes: list[str] = json.loads(metadata["classes"])
        self.link: ServerLink | None = None
        self._deadline = settings.deadline_ms / 1000

    def predict(self, activations: Iterator[Tensor]) -> Iterator[Tensor]:
        """Ask the server, within the deadline for each batch."""
        assert self.link is not None, "a link is set before the first question"
        for activation in activations:
            yield from self.link.predict(
                iter([activation]),
                cut_layer=self.model.cut_layer,
                fingerprint=self.model.fingerprint,
                deadline=self._deadline,
            )


def _inputs(settings: InferenceSettings, plan: Plan) -> tuple[Tensor, Shard | None]:
    if settings.dataset is None:
        files = (decode(_read(path), str(path)) for path in settings.images)
        return stack(files, len(settings.images), plan.image_size), None
    test = load_test(settings.dataset, settings.data_dir, plan)
    if settings.samples:
        test = test.first(settings.samples)
    return test.images, test


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} can not be read: {error.strerror}") from None


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
            by = {"entropy": round(each.entropy, 4), "source": each.source.value}
            print(json.dumps({"image": name} | fields | by))
    elif test is None:
        Console().print(_answer_table(names, answers, classes))
    if test is not None:
        print(_summary(answers, test), file=sys.stderr if settings.output == "json" else sys.stdout)


def _answer_table(names: list[str], answers: list[Answer], classes: list[str]) -> Table:
    table = Table()
    for heading in ("image", "class", "confidence", "entropy", "answered by"):
        table.add_column(heading)
    for name, each in zip(names, answers, strict=True):
        numbers = (f"{each.confidence:.1%}", f"{each.entropy:.3f}")
        table.add_row(name, classes[each.label], *numbers, each.source.value)
    return table


def _summary(answers: list[Answer], test: Shard) -> str:
    right = torch.tensor([each.label for each in answers]) == test.labels
    by = Counter(each.source for each in answers)
    shares = ", ".join(f"{source.value} {by[source] / len(answers):.1%}" for source in Source)
    return f"accuracy {float(right.double().mean()):.2%} of {len(answers)} images; {shares}"


if __name__ == "__main__":
    sys.exit(main())
