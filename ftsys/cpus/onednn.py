"""Bounds the kernels that oneDNN keeps in memory, by environment variables.

oneDNN is torch's library of matrix products in bf16, and of those with weights in its own order. It makes a kernel for
each number of rows, which is another one for nearly every batch without padding. By default oneDNN keeps 1,024 of them,
and torch's layer above it as many again: in loops over single layers, 0.3 to 0.7 MB for each, up to 1.1 GB. To make one
takes 0.5 ms. The variables are read when the first kernel is made.
"""

from collections.abc import MutableMapping

KEPT = 64
"""Kernels to keep: more than the layers of a step have shapes."""
VARIABLES = {
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"),
    "LRU_CACHE_CAPACITY": ("LRU_CACHE_CAPACITY",),
}
"""The variable of each library, with all names under which it is read."""


def bound_kernel_caches(environ: MutableMapping[str, str]) -> None:
    """Set the variables that the user has not set."""
    for name, names in VARIABLES.items():
        if environ.keys().isdisjoint(names):
            environ[name] = str(KEPT)
