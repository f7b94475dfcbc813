from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from hetero_common.compute.process import limit_threads

_PAGES_FETCHED = """
import ctypes, resource, sys
from hetero_common.compute.process import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
if sys.argv[1] == "kept":
    keep_freed_memory()

def step():
    blocks = [ctypes.c_void_p(libc.malloc(30 << 20)) for _ in range(3)]
    for block in blocks:
        libc.memset(block, 1, 30 << 20)
    for block in blocks:
        libc.free(block)

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_fetched(freed: str) -> int:
    command = [sys.executable, "-c", _PAGES_FETCHED, freed]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_threads_are_bounded() -> None:
    limit_threads(2)
    assert torch.get_num_threads() == 2
    limit_threads(1)
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told so")
def test_freed_memory_is_used_again_without_asking_the_kernel() -> None:
    assert pages_fetched("kept") < pages_fetched("given back") / 10
