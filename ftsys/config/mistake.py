"""A mistake in a run file, collected rather than raised, so that all of them are reported together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """A message and the dotted keys it is about."""

    text: str
    keys: tuple[str, ...]
