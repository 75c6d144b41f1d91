"""Measures how well orders of examples mix a file: `ftsys bench mixing`."""

from ftsys.bench.mixing.bench import main

__all__ = ["main"]
