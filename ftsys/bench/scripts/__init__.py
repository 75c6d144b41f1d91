"""Measures training scripts as people have them, each with the stock Trainer and with ours: `ftsys bench scripts`."""

from ftsys.bench.scripts.measure import main

__all__ = ["main"]
