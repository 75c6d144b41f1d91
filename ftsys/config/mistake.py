"""Defines a mistake in a run file. Mistakes are collected, not raised, so that all of them are reported together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """A message, and the dotted keys that it is about."""

    text: str
    keys: tuple[str, ...]
