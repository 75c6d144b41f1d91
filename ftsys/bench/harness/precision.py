"""Chooses the number format of a benchmark's peers that are not bound to one."""

import argparse
from functools import cache

_ordered: list[str] = []
"""The format that the command line named, if any."""


def add_precision_option(parser: argparse.ArgumentParser) -> None:
    """Add `--precision`, whose value goes to `use_precision`."""
    text = "number format of the peers that are not bound to one (default: the faster one on this machine)"
    parser.add_argument("--precision", choices=("bf16", "fp32"), help=text)


def use_precision(name: str | None) -> None:
    """Let `faster_precision` return this format from now on; None: the faster one on this machine."""
    _ordered[:] = [] if name is None else [name]


def faster_precision() -> str:
    """Return "bf16" or "fp32": what `use_precision` was told, else the faster one here, as ftsys chooses."""
    return _ordered[0] if _ordered else _measured()


@cache
def _measured() -> str:
    import torch

    from ftsys.train.perf.product_rates import product_rates

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if product_rates().bf16_pays else "fp32"
