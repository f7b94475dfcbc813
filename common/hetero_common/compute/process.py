"""What a process of ours asks of the machine: bounded threads, memory that is kept for reuse."""

from __future__ import annotations

import contextlib
import ctypes

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_MAPPED_FROM = 32 << 20  # bytes; the most that glibc's own adaptation reaches
_KEPT = 1 << 30  # bytes


def limit_threads(threads: int) -> None:
    """Bound torch's threads: processes that share cores and do not can run ten times slower."""
    torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Let the C library keep up to 1 GiB that was freed, instead of giving it back at once.

    Every step frees and allocates the same tensors and frames. Fetching their pages anew from the
    kernel costs a training step of ResNet-18 at width 16 about 7 % of its CPU time
    (docs/performance.md). Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
