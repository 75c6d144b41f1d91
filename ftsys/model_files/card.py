"""Reads what a run has noted for later uses in the head of its model card, README.md, so that it travels with a model.

ftsys:
  columns: [sentence1, sentence2]
  max_length: 128
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from ftsys.untrusted import typed

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


class _Section(TypedDict):
    columns: list[str]
    max_length: int


def read_card(folder: Path) -> CardFacts | None:
    """Return the facts in the card of a model's folder; None for a card without them, also for one that is damaged.

    A card is text for people, so nothing in it is an error.
    """
    try:
        with (folder / CARD).open("rb") as stream:
            head = _HEAD.match(stream.read(_LONGEST).decode("utf-8", "replace"))
        found = typed(_Section, _yaml(head[1]).get(SECTION)) if head else None
    except (OSError, ValueError, AttributeError):
        return None
    if found is None or len(found["columns"]) not in (1, 2) or found["max_length"] < 1:
        return None
    return CardFacts(tuple(found["columns"]), found["max_length"])


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error
