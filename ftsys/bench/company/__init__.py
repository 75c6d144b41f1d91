"""Measures trainings that share their cores with others: `ftsys bench company`."""

from ftsys.bench.company.bench import main

__all__ = ["main"]
