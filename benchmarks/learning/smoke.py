"""Every method and every switch of hetero-sim, for a few steps each: does it run?

python benchmarks/learning/smoke.py

Which choices there are is read from the settings, so none can be forgotten. What has numbers in the
place of choices is listed here.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from hetero_common.records.history import read_records
from hetero_common.registry import registry_of
from hetero_lab.__main__ import main as simulate
from hetero_lab.report.command import main as report
from hetero_lab.settings import SimulationSettings

_SMALL = (
    *("--dataset", "digits", "--normalization", "digits", "--image-size", "8", "--clients", "6"),
    *("--model", "tinycnn", "--width", "4", "--cut-layers", "2,3,4", "--rounds", "3"),
    *("--steps-per-round", "2", "--eval-samples", "20", "--log-level", "error"),
)
_NOT_OF_LEARNING = {"log_level", "log_format", "quiet", "verbose", "tensorboard", "dataset"}
_TOGETHER: dict[tuple[str, str], Sequence[str]] = {
    ("order", "relay"): ("--strategy", "sequential"),
    ("method", "splitfed-v1"): ("--cut-layers", "3"),
    ("method", "splitfed-v2"): ("--cut-layers", "3"),
    ("stem", "imagenet"): ("--model", "resnet18", "--image-size", "32"),
    ("model", "mobilenet_v2"): ("--image-size", "32", "--width", "8"),
    **{("model", name): ("--image-size", "32") for name in ("resnet18", "resnet34", "vgg11_bn")},
}
"""What a choice needs beside it."""
_NUMBERS: Sequence[Sequence[str]] = (
    *(("--exits", exits) for exits in ("last", "all", "2,4")),
    ("--steps-per-round", "0"),
    ("--batch-size", "2"),
    ("--logit-adjustment", "1"),
    ("--grad-clip", "0.1"),
    ("--exit-weight", "0", "--feedback", "gradient"),
    ("--distill-weight", "1", "--feedback", "logits"),
    ("--strategy", "averaging", "--aggregate-every", "2"),
    ("--partition", "dirichlet", "--alpha", "0.1", "--min-shard", "16"),
    ("--size-spread", "1"),
    ("--cut-skew", "0.9"),
    ("--validation", "0.2"),
    ("--eval-every", "1"),
)


def main() -> int:
    """Run all of it; 1 if something went wrong."""
    began = time.perf_counter()
    with TemporaryDirectory() as folder:
        runs = {Path(folder, str(number)): flags for number, flags in enumerate(_all_flags())}
        wrong = [
            f"{' '.join(flags)}: {fault}"
            for run, flags in runs.items()
            if (fault := _fault(flags, run))
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            reported = report([*map(str, runs), "--output", str(Path(folder, "report"))])
        if reported:
            wrong.append(f"hetero-report of all runs: exit code {reported}")
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(runs)} runs, {len(wrong)} faults, {time.perf_counter() - began:.0f} s")
    return 1 if wrong else 0


def _all_flags() -> Iterator[Sequence[str]]:
    for name, field in SimulationSettings.model_fields.items():
        registry = registry_of(field)
        choices = registry.names() if registry else _literals(field)
        if name not in _NOT_OF_LEARNING:
            for choice in choices:
                beside = _TOGETHER.get((name, choice), ())
                yield (f"--{name.replace('_', '-')}", choice, *beside)
    yield from _NUMBERS


def _literals(field: FieldInfo) -> Sequence[str]:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def _fault(flags: Sequence[str], run: Path) -> str | None:
    with contextlib.redirect_stdout(io.StringIO()):
        code = simulate([*_SMALL, *flags, "--run-dir", str(run)])
    if code:
        return f"exit code {code}"
    events = read_records(run)
    tested = [event for event in events if event["event"] == "evaluation"]
    shares = [v for e in tested for k, v in e.items() if k.endswith("accuracy") and v is not None]
    if not shares or not all(_is_share(share) for share in shares):
        return "an accuracy is none"
    return None


def _is_share(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_share(each) for each in value if each is not None)
    return isinstance(value, float | int) and 0 <= value <= 1


if __name__ == "__main__":
    sys.exit(main())
