"""Reads what a run has noted for later uses in the head of its model card, README.md, so that it travels with a model.

ftsys:
  columns: [sentence1, sentence2]
  max_length: 128
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsys.files.untrusted import open_regular, parse_yaml
from ftsys.model_files.values import LARGEST_SIZE

CARD = "README.md"
SECTION = "ftsys"
_LONGEST = 1 << 16
"""Bytes of a card that are looked at: its head is at the beginning."""
_HEAD = re.compile(r"\A---\r?\n(.*?)\r?\n---\s*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class CardFacts:
    """The text columns of a model's training, and the tokens to which its rows were cut."""

    columns: tuple[str, ...]
    max_length: int


def read_card(folder: Path) -> CardFacts | None:
    """Return the facts in the card of a model's folder; None for a card without them, also for one that is damaged.

    A card is text for people, so nothing in it is an error.
    """
    try:
        with open_regular(folder / CARD) as stream:
            head = _HEAD.match(stream.read(_LONGEST).decode("utf-8", "replace"))
        section = parse_yaml(head[1]).get(SECTION) if head else None
    except (OSError, ValueError, AttributeError):
        return None
    return _facts_of(section) if isinstance(section, dict) else None


def _facts_of(section: dict[Any, Any]) -> CardFacts | None:
    """Check the values one by one: written out as JSON, a few YAML aliases would be gigabytes."""
    columns, longest = section.get("columns"), section.get("max_length")
    if (
        not isinstance(columns, list)
        or len(columns) not in (1, 2)
        or not all(isinstance(name, str) for name in columns)
    ):
        return None
    if not isinstance(longest, int) or isinstance(longest, bool) or not 1 <= longest <= LARGEST_SIZE:
        return None
    return CardFacts(tuple(columns), longest)
