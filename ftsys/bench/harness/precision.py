"""Chooses the number format of a benchmark's peers that are not bound to one."""

from functools import cache


@cache
def faster_precision() -> str:
    """Return "bf16" or "fp32": the faster one on this machine, as ftsys chooses by itself."""
    import torch

    from ftsys.train.perf.product_rates import product_rates

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if product_rates().bf16_pays else "fp32"
