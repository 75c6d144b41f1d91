"""Measures the scoring of rows of text: `ftsys bench predict`."""

from ftsys.bench.predict.bench import main

__all__ = ["main"]
