"""How well thresholds that were chosen on held-out images keep what was asked for, on test images.

python benchmarks/learning/calibration.py "runs/learning/.../default seed 0" ... --zip cifar10.zip

Takes the weights of a table's runs by `run.py`, on the machine that trained them. Thresholds are
chosen on training images that no run has trained on, by one client of each cut layer. Numbers are
means over the runs.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import torch
import yaml
from run import TABLES
from subsets import subset
from torch import Tensor

from hetero_client.data.shard import Shard, load_test
from hetero_client.device_model import DeviceModel
from hetero_client.exits.chosen_threshold import Calibration
from hetero_client.exits.evaluation import ask_both
from hetero_client.exits.rule import UNCERTAINTY, Answers
from hetero_client.exits.thresholds import Target, for_offload, lost_images
from hetero_common.compute.device import Compute
from hetero_common.records.history import read_records
from hetero_common.tensors.codec import round_trip
from hetero_common.tensors.weights import read_file
from hetero_server.learning.initial_model import InitialModel, load_run
from hetero_server.learning.suffix import Suffix

_TARGETS = (
    Target("offload", 0.3),
    Target("offload", 0.5),
    Target("max-loss", 0.05, 0.95),
    Target("max-loss", 0.02, 0.95),
    Target("max-loss", 0.01, 0.95),
)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_KEPT = (
    *("cut layer", "asked for", "threshold", "offloaded %", "on test images %"),
    *("accuracy %", "server's %", "lost %", "most lost %"),
)
_MEASURES = (
    *("cut layer", "AUROC of the exit"),
    *("calibration error of the exit %", "of the server %"),
)
_Rows = defaultdict[tuple[str, ...], list[list[float]]]
"""What each run has given, by the first cells of a row."""


def main() -> None:
    """Print the tables."""
    arguments = _arguments()
    budget = yaml.safe_load(TABLES.read_text())["budgets"][arguments.budget]
    kept, measures, costs = _Rows(list), _Rows(list), _Rows(list)
    chosen_on, test = _images(arguments.runs[0], arguments.zip, budget["images"])
    for run in arguments.runs:
        for cut_layer, both in _one_of_each(run):
            here, there = both.ask(chosen_on.images), both.ask(test.images)
            cut = str(cut_layer)
            answers = {c: Answers.of(*there, test.labels, c) for c in UNCERTAINTY}
            for target in _TARGETS:
                chosen = _calibration(here, chosen_on.labels, target)
                kept[cut, str(target)].append(_kept(chosen, answers[chosen.criterion]))
            measures[(cut,)].append(_measures(_calibration(there, test.labels, _TARGETS[0])))
            for criterion, by_it in answers.items():
                costs[cut, criterion].append(_costs(by_it))
    for row in kept.values():
        worst = max(numbers[-1] for numbers in row)
        row[:] = [[*numbers, worst] for numbers in row]
    _print(_KEPT, kept)
    _print(_MEASURES, measures)
    _print(("cut layer", "criterion", *(f"{share:.0%}" for share in _SHARES)), costs)


def _kept(chosen: Calibration, answers: Answers) -> list[float]:
    """What a threshold gives for other images than it was chosen on."""
    point = answers.at(chosen.threshold)
    lost = lost_images(answers, chosen.threshold) / len(answers.exit_right)
    shares = (chosen.offload_share, point.offload_share)
    return [
        chosen.threshold,
        *(100 * each for each in (*shares, point.accuracy, answers.server_accuracy, lost)),
    ]


def _measures(whole: Calibration) -> list[float]:
    errors = (whole.exit_calibration_error, whole.server_calibration_error)
    return [whole.exit_auroc or 0, *(100 * error for error in errors)]


def _costs(answers: Answers) -> list[float]:
    """Accuracy below the server's with each of `_SHARES` offloaded, of these images."""
    points = (answers.at(for_offload(answers, share)) for share in _SHARES)
    return [100 * (answers.server_accuracy - point.accuracy) for point in points]


def _print(headings: Sequence[str], rows: _Rows) -> None:
    """A table of means over the runs."""
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for names, of_each_run in rows.items():
        means = (f"{fmean(column):.2f}" for column in zip(*of_each_run, strict=True))
        print(f"| {' | '.join((*names, *means))} |")
    print()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="directories of run.py, with weights")
    parser.add_argument("--zip", type=Path, required=True, help="the data, as zipped image folder")
    parser.add_argument("--budget", default="small", help="of the runs, a name of tables.yaml")
    return parser.parse_args()


def _images(run: Path, source: Path, count: int) -> tuple[Shard, Shard]:
    """Those that a threshold is chosen on, and the test images: a table has the same for all."""
    plan = load_run(run).plan
    data = run.parents[1] / run.parent.name
    held_out = subset(source, data.with_suffix(".held-out.zip"), count, held_out=5000)
    tested = subset(source, data.with_suffix(".zip"), count)
    chosen_on, test = (load_test(f"folder:{each}", Path(), plan) for each in (held_out, tested))
    return chosen_on, test


def _one_of_each(run: Path) -> Iterator[tuple[int, _Both]]:
    """A client of each cut layer."""
    initial = load_run(run)
    seen: set[int] = set()
    for event in read_records(run):
        if event["event"] == "joined" and event["cut_layer"] not in seen:
            cut_layer = event["cut_layer"]
            seen.add(cut_layer)
            yield cut_layer, _Both(initial, run / f"{event['client']}.safetensors", cut_layer)


def _calibration(answered: tuple[Tensor, Tensor], labels: Tensor, target: Target) -> Calibration:
    return Calibration.of(*answered, labels, target, source="images", model="")


class _Both:
    """A client's exit, and the server that it would ask."""

    def __init__(self, initial: InitialModel, file: Path, cut_layer: int) -> None:
        self._rows, self._wire = initial.plan.predict_rows, initial.plan.wire
        self._model = DeviceModel(initial.plan, cut_layer, Compute())
        weights, _ = read_file(file)
        self._model.load(weights)
        self._cut_layer = cut_layer
        self._suffix = Suffix(initial.fresh(cut_layer), initial.plan, Compute())

    def ask(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of both, (N, classes) each."""
        return ask_both(self._model, images, self._predict, self._rows)

    def _predict(self, activations: Iterator[Tensor]) -> Iterator[Tensor]:
        for activation in activations:
            arrived = round_trip(activation, self._wire)
            yield self._suffix.predict(arrived, self._cut_layer)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
