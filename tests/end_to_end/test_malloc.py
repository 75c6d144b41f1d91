"""Tests that freed memory is reused without page faults, in a separate process."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: one fault a page of 4 KiB
import torch
from ftsys.train.perf.malloc import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        large = [torch.ones(n, dtype=torch.uint8) for n in (40 << 20, 1 << 20, 3 << 20)]
        del large
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
kept = keep_freed_memory()
faults()
print(kept, first, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize("chosen", [{}, {"MALLOC_ARENA_MAX": "2"}])
def test_freed_memory_is_kept_unless_the_environment_chooses(chosen: dict[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM]
    said = subprocess.run(command, env={**environment, **chosen}, capture_output=True, text=True, check=True).stdout
    kept, before, after = said.split()
    assert kept == str(not chosen)
    assert int(before) > 50_000
    assert int(after) < 500 if kept == "True" else int(after) > 50_000


GROWTH = """
import torch
from ftsys.train.perf.malloc import keep_freed_memory

def heap():
    ranges = [line.split()[0].split("-") for line in open("/proc/self/maps") if "[heap]" in line]
    return sum(int(end, 16) - int(begin, 16) for begin, end in ranges)

assert keep_freed_memory()
small, large = [], None
for n in range(20):
    large = torch.empty(2_000_000_000, dtype=torch.uint8)  # DeepSpeed's bucket of gradients; the former one is freed
    small.append(torch.empty(1000 + n))
print(heap() // 2_000_000_000)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_blocks_do_not_pile_up_in_the_heap() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", GROWTH]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "0\n"
