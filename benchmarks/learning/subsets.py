"""Parts of a zipped image folder, as archives of their own.

A budget trains on some of the training images. Settings are chosen by images that are held out of
the others; the test images are for final tables alone.
"""

from __future__ import annotations

import os
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

SEED = 20_000
"""Which images a part has; the same in all runs."""


def subset(source: Path, target: Path, images: int, *, held_out: int = 0) -> Path:
    """An archive with `images` training images, as many of each class.

    Args:
        source: Holds `train/<class>/*` and `test/<class>/*`.
        target: Where the archive is; one that exists is taken as it is.
        images: How many training images it has.
        held_out: Its test images are so many other training images; 0: those of the source.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}")
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(unfinished, "w") as part:
        train, test = _by_class(whole, "train"), _by_class(whole, "test")
        for name, files in sorted(train.items()):
            order = [files[i] for i in np.random.default_rng(SEED).permutation(len(files))]
            count, held = images // len(train), held_out // len(train)
            if count + held > len(order):
                raise SystemExit(f"{source} has only {len(order)} training images of {name}")
            tested = order[count : count + held] if held_out else test[name]
            for split, chosen in (("train", order[:count]), ("test", tested)):
                for file in sorted(chosen):
                    inside = f"{split}/{name}/{file.rpartition('/')[2]}"
                    part.writestr(inside, whole.read(file))
    unfinished.rename(target)
    return target


def _by_class(archive: zipfile.ZipFile, split: str) -> Mapping[str, Sequence[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(archive.namelist()):
        parts = file.split("/")
        if len(parts) == 3 and parts[0] == split and parts[2]:
            found[parts[1]].append(file)
    return found
