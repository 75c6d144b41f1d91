"""Sets glibc's malloc to keep freed memory between the steps of CPU training.

By default, glibc returns a large block to the kernel as soon as it is freed, and the free end of its heap soon after.
The next step allocates the same memory again, and the kernel clears each page of it: for MiniLM 25,000 page faults per
step, a tenth of the step's time.
"""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3).

M_TRIM_THRESHOLD: free bytes at the end of the heap above which they are returned to the kernel. M_MMAP_THRESHOLD: size
of a block in bytes from which it gets its own mapping.
"""
_LARGEST = 2**31 - 1
_OWN_MAPPING = 1 << 28
"""Blocks of 256 MiB and more get mappings of their own, as by default. In the heap they would be lost piece by piece.

DeepSpeed's gradient bucket of 2 GB, of which a small model uses a part, is freed and allocated again and again. A small
block that comes to lie in its place makes the heap grow by another 2 GB.
"""
_CHOSEN_BY = ("MALLOC_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Make this process keep freed memory, without a higher peak. Return True if it does.

    It does nothing if the C library is not glibc, or if an environment variable of the user configures malloc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith(_CHOSEN_BY) for name in os.environ):
        return False
    settings = {_MMAP_THRESHOLD: _OWN_MAPPING, _TRIM_THRESHOLD: _LARGEST}
    return all(mallopt(setting, value) == 1 for setting, value in settings.items())
