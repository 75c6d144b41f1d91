"""A process whose batches all have another number of rows keeps few of oneDNN's kernels."""

import os
import subprocess
import sys

MANY_SHAPES = """
import os
import psutil, torch
from ftsys.cpus.onednn import bound_kernel_caches
from ftsys.models.onednn.inference import prepack
bound_kernel_caches(os.environ)
layer = torch.nn.Linear(256, 264)
prepack(layer)
rows, memory = torch.randn(2000, 256), psutil.Process().memory_info
with torch.no_grad():
    for count in range(512, 800):
        layer(rows[:count])
    before = memory().rss
    for count in range(800, 1600):
        layer(rows[:count])
print((memory().rss - before) >> 20)
"""


def growth() -> int:
    """MiB by which a process grows with 800 numbers of rows."""
    fixed = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # so that freed tensors are no part of the growth
    done = subprocess.run(
        [sys.executable, "-c", MANY_SHAPES], capture_output=True, text=True, check=True, env=os.environ | fixed
    )
    return int(done.stdout)


def test_memory_does_not_grow_with_the_shapes() -> None:
    assert growth() < 40  # 283 without the bound
