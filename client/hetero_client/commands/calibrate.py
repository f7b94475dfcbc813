"""hetero-infer --calibrate: choose a device's threshold, and keep it with its run.

hetero-infer --run runs/board-1 --server host:50051 --calibrate --offload 0.3
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from hetero_client.commands.trained_device import TrainedDevice
from hetero_client.commands.validation_images import held_out, labeled
from hetero_client.exits.chosen_threshold import CALIBRATION_FILE, Calibration, digest
from hetero_client.exits.evaluation import ask_both
from hetero_client.exits.thresholds import images_needed
from hetero_client.settings import InferenceSettings


def calibrate(settings: InferenceSettings, device: TrainedDevice) -> None:
    """Choose the threshold of a device with the help of its server, keep it and print it.

    Raises:
        SettingsError: There are no images for it, or the target cannot be reached.
        ServerUnreachable: The server is gone, or late.
    """
    target = settings.target()
    if settings.dataset is None:
        images = held_out(settings.run, device.plan)
    else:
        images = labeled(settings.dataset, device)
    with device.connected(deadline=None) as predict:
        answers = ask_both(device.model, images.shard.images, predict, device.rows)
    calibration = Calibration.of(
        *answers,
        images.shard.labels,
        target,
        settings.wanted_criterion,
        source=images.source,
        model=digest(settings.run),
    )
    calibration.write(settings.run)
    _print(calibration, settings)


def _print(calibration: Calibration, settings: InferenceSettings) -> None:
    json = settings.output == "json"
    if json:
        print(calibration.model_dump_json())
    else:
        Console().print(_table(calibration))
    remark = _remark(calibration)
    kept = f"kept in {settings.run / CALIBRATION_FILE}: hetero-infer answers with it from now on"
    for line in filter(None, (remark, kept)):
        print(line, file=sys.stderr if json else sys.stdout)


def _table(calibration: Calibration) -> Table:
    auroc, bound = calibration.exit_auroc, calibration.lost_at_most
    table = Table(title="Calibration", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in (
        ("chosen for", f"{calibration.target}"),
        ("images", f"{calibration.images}, {calibration.source}"),
        ("threshold", f"{calibration.threshold:.4g}"),
        ("accuracy of the exit", f"{calibration.exit_accuracy:.2%}"),
        ("accuracy of the server", f"{calibration.server_accuracy:.2%}"),
        ("accuracy at the threshold", f"{calibration.accuracy:.2%}"),
        ("offloaded", f"{calibration.offload_share:.1%}"),
        ("lost", f"{calibration.lost_share:.2%}"),
        ("lost at most", "-" if bound is None else f"{bound:.2%}"),
        (f"AUROC of the {calibration.criterion}", "-" if auroc is None else f"{auroc:.3f}"),
        ("calibration error of the exit", f"{calibration.exit_calibration_error:.2%}"),
        ("calibration error of the server", f"{calibration.server_calibration_error:.2%}"),
    ):
        table.add_row(name, value)
    return table


def _remark(calibration: Calibration) -> str | None:
    """Explain why a bound on the loss has everything offloaded, if it has."""
    target, images = calibration.target, calibration.images
    if target.confidence is None or calibration.threshold >= 0:
        return None
    needed = images_needed(target.value, target.confidence)
    if needed is None:
        why = "no number of images can show that none is lost"
    elif images < needed:
        why = f"{images} images cannot show it, {needed} can if none of them is lost"
    else:
        why = "the exit loses too much even where it is surest"
    return f"everything is offloaded: {why}"
