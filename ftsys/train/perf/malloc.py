"""Keeping freed memory between a CPU's steps: the kernel clears every page that it hands out, step after step.

glibc returns large blocks to the kernel as soon as they are freed, and the end of its heap soon after. A step frees
what the next one asks for again: for MiniLM 25,000 pages, whose faults take a tenth of the time.
"""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of mallopt(3): free bytes at the heap's end that go back, and the size from which a block is a mapping of its own."""
_LARGEST = 2**31 - 1
_CHOSEN_BY = ("MALLOC_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, at no higher peak. Returns whether it does.

    Not where the C library is another than glibc, or where the user's environment settles it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith(_CHOSEN_BY) for name in os.environ):
        return False
    return all(mallopt(setting, _LARGEST) == 1 for setting in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
