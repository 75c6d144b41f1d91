"""Measures the time from the command to the quality of the Hugging Face course's recipe: `ftsys bench quality`."""

from ftsys.bench.quality.bench import main

__all__ = ["main"]
