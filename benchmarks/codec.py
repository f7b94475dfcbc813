"""What encoding and decoding an activation costs, as a multiple of copying its memory once.

A copy of the same array into memory that is already there is the least any transport can do, so it
is the unit; encode and decode allocate what they return, as they do in training. Fair because copy
and codecs take turns within one loop, and because CPU time of the thread is read, not the clock: a
call that another process interrupts does not count as slow.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch
from measure import SEED, Result

from hetero_common.tensors.codec import ITEM_BYTES, round_trip

_SHAPE = (64, 16, 32, 32)  # 4 MiB of fp32
_PASSES = 30
_BOUNDS = {"fp32": 6.0, "int8": 15.0}


def run(repeats: int) -> list[Result]:
    """Encode + decode per wire dtype."""
    torch.set_num_threads(1)
    activation = torch.randn(_SHAPE, generator=torch.Generator().manual_seed(SEED))
    _seconds(activation)  # the first pass of a process pays for its memory
    passes = [_seconds(activation) for _ in range(repeats)]
    return [
        Result(
            "codec",
            f"encode + decode {wire_dtype} / memory copy",
            [seconds[wire_dtype] / seconds["copy"] for seconds in passes],
            _BOUNDS.get(wire_dtype),
        )
        for wire_dtype in ITEM_BYTES
    ]


def _seconds(activation: torch.Tensor) -> dict[str, float]:
    """CPU seconds of `_PASSES` copies and round trips."""
    target = torch.empty_like(activation)
    seconds: defaultdict[str, float] = defaultdict(float)
    for _ in range(_PASSES):
        seconds["copy"] += _timed(partial(target.copy_, activation))
        for wire_dtype in ITEM_BYTES:
            seconds[wire_dtype] += _timed(partial(round_trip, activation, wire_dtype))
    return seconds


def _timed(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started
