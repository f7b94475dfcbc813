"""How well thresholds that were chosen on held-out images keep what was asked for, on test images.

python benchmarks/learning/calibration.py "runs/learning/.../default seed 0" --zip cifar10.zip

Takes the weights of a run of `run.py`, on the machine that trained it. Thresholds are chosen on
training images that the run has not trained on, by one client of each cut layer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from run import TABLES
from subsets import subset
from torch import Tensor

from hetero_client.calibration import Calibration
from hetero_client.device_model import DeviceModel
from hetero_client.early_exit import UNCERTAINTY, Answers
from hetero_client.evaluation import ask_both
from hetero_client.shards import load_test
from hetero_client.thresholds import Target, for_offload, lost_images
from hetero_common.compute import Compute
from hetero_common.rundir import read_events
from hetero_common.weights import read_file
from hetero_server.initial import InitialModel, load_run
from hetero_server.suffix import Suffix

_TARGETS = (
    Target("offload", 0.3),
    Target("offload", 0.5),
    Target("max-loss", 0.05, 0.95),
    Target("max-loss", 0.02, 0.95),
    Target("max-loss", 0.01, 0.95),
)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_HEADINGS = (
    *("cut layer", "asked for", "threshold", "offloaded %", "on test images"),
    *("accuracy %", "server's %", "lost %"),
)


def main() -> None:
    """Print the tables."""
    arguments = _arguments()
    run: Path = arguments.run
    budget = yaml.safe_load(TABLES.read_text())["budgets"][arguments.budget]
    data, images = run.parents[1] / run.parent.name, budget["images"]
    held_out = subset(arguments.zip, data.with_suffix(".held-out.zip"), images, held_out=5000)
    tested = subset(arguments.zip, data.with_suffix(".zip"), images)
    initial = load_run(run)
    chosen_on, test = (load_test(f"folder:{z}", Path(), initial.plan) for z in (held_out, tested))
    print(f"| {' | '.join(_HEADINGS)} |\n|{'---|' * len(_HEADINGS)}")
    measures = []
    costs = []
    for client, cut_layer in _one_of_each(run):
        both = _Both(initial, run / f"{client}.safetensors", cut_layer)
        here, there = both.ask(chosen_on.images), both.ask(test.images)
        answers = Answers.of(*there, test.labels)
        for target in _TARGETS:
            chosen = _calibration(here, chosen_on.labels, target)
            point = answers.at(chosen.threshold)
            cells = (
                *(str(cut_layer), f"{target}", f"{chosen.threshold:.3f}"),
                *(f"{100 * chosen.offload_share:.1f}", f"{100 * point.offload_share:.1f}"),
                *(f"{100 * point.accuracy:.2f}", f"{100 * answers.server_accuracy:.2f}"),
                f"{100 * lost_images(answers, chosen.threshold) / len(test.labels):.2f}",
            )
            print(f"| {' | '.join(cells)} |")
        whole = _calibration(there, test.labels, _TARGETS[0])
        measures.append((cut_layer, whole))
        costs += [(cut_layer, c, _costs(Answers.of(*there, test.labels, c))) for c in UNCERTAINTY]
    print("\n| cut layer | AUROC | calibration error of the exit % | of the server % |")
    print("|---|---|---|---|")
    for cut_layer, whole in measures:
        errors = (whole.exit_calibration_error, whole.server_calibration_error)
        shown = " | ".join(f"{100 * error:.2f}" for error in errors)
        print(f"| {cut_layer} | {whole.exit_auroc or 0:.3f} | {shown} |")
    shares = " | ".join(f"{share:.0%}" for share in _SHARES)
    print(f"\n| cut layer | criterion | {shares} |\n|---|---|{'---|' * len(_SHARES)}")
    for cut_layer, criterion, lost in costs:
        print(f"| {cut_layer} | {criterion} | {' | '.join(f'{100 * each:.2f}' for each in lost)} |")


def _costs(answers: Answers) -> list[float]:
    """Accuracy below the server's with each of `_SHARES` offloaded, of these images."""
    points = (answers.at(for_offload(answers, share)) for share in _SHARES)
    return [answers.server_accuracy - point.accuracy for point in points]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run directory of run.py, with weights")
    parser.add_argument("--zip", type=Path, required=True, help="the data, as zipped image folder")
    parser.add_argument("--budget", default="small", help="of the run, a name of tables.yaml")
    return parser.parse_args()


def _one_of_each(run: Path) -> Iterator[tuple[str, int]]:
    """A client of each cut layer, with it."""
    seen: set[int] = set()
    for event in read_events(run):
        if event["event"] == "joined" and event["cut_layer"] not in seen:
            seen.add(event["cut_layer"])
            yield event["client"], event["cut_layer"]


def _calibration(answered: tuple[Tensor, Tensor], labels: Tensor, target: Target) -> Calibration:
    return Calibration.of(*answered, labels, target, source="images", model="")


class _Both:
    """A client's exit, and the server that it would ask."""

    def __init__(self, initial: InitialModel, file: Path, cut_layer: int) -> None:
        self._rows = initial.plan.predict_rows
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
            yield self._suffix.predict(activation, self._cut_layer)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
