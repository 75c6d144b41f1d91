"""Defines the kinds of values that keys of a run file have, each with what to write in its place, and a mistake.

Mistakes are collected, not raised, so that all of them are reported together.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ftsys.config.old_words import todays_word
from ftsys.files.paths import expanded


@dataclass(frozen=True)
class Write:
    """Tells the user which values a field accepts; the second half of its error messages."""

    text: str


@dataclass(frozen=True)
class Mistake:
    """A message, and the dotted keys that it is about."""

    text: str
    keys: tuple[str, ...]


_SECRETS = ("token", "password", "passwd", "passphrase", "secret", "credential", "apikey", "accesskey", "privatekey")
_NO_SECRETS = ("tokens", "tokenizer")


def is_secret(key: str) -> bool:
    """Return True if the name of a dotted key looks like that of a secret, also where it is misspelt."""
    words = re.split(r"[^a-z0-9]+", key.rpartition(".")[2].lower())
    pairs = map("".join, pairwise(words))
    candidates = [word for word in (*words, *pairs) if word not in _NO_SECRETS]
    return any(get_close_matches(word, _SECRETS, n=1, cutoff=0.8) for word in candidates)


def told(key: str, value: object) -> str:
    """Return "key=value" for a message; a value that may be a secret is left out, since messages go into logs."""
    return f"{key}={without_secrets(key, value)!r}"


def without_secrets(key: str, value: object) -> object:
    """Return the value with "***" for a secret, and for those in its tables."""
    if is_secret(key):
        return "***"
    if isinstance(value, Mapping):
        return {name: without_secrets(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets("", inner) for inner in value]
    return value


def as_tuple(value: Any) -> Any:
    """Turn a list into a tuple, as a frozen tree has it; other values stay, for the field's own check."""
    return tuple(value) if isinstance(value, list) else value


def _no_lookalike(value: Any) -> Any:
    if isinstance(value, bool | float):  # Literal[0, 1] accepts False, True and 1.0 as equal values
        raise ValueError("no whole number")
    return value


def one_or_several(value: Any) -> Any:
    """Turn one text into a tuple of one, and a list into a tuple."""
    return (value,) if isinstance(value, str) else as_tuple(value)


def _no_means_never(value: Any) -> Any:
    return "never" if value == "no" else value


def known_offload(value: str) -> str:
    """Return the value if it is a kind of offload; raises ValueError otherwise, as pydantic's validators do."""
    if value in ("none", "optimizer", "parameters") or (value.startswith("nvme:/") and value != "nvme:/"):
        return value
    raise ValueError("no known offload")


def with_home(value: Any) -> Any:
    """Return a path, or a table of paths, with the home folder in place of "~": all readers get the same path.

    Other texts stay, such as the name of a model. "hub:~/PATH" is a path as well.
    """
    if isinstance(value, Mapping):
        return {name: with_home(path) for name, path in value.items()}
    before = "hub:" if value.startswith("hub:~") else ""
    path = value.removeprefix(before)
    return f"{before}{expanded(path)}" if path.startswith("~") else value


LARGEST_WHOLE = 2**53
"""The limit of whole numbers: above it, floats cannot hold them all, and later their quotients overflow."""
Whole = Annotated[int, Field(gt=0, le=LARGEST_WHOLE)]
Text = Annotated[str, Field(min_length=1), Write("text in quotes, not empty")]
HomePath = Annotated[str, AfterValidator(with_home)]
NamedPath = Annotated[HomePath, Field(min_length=1), Write("text in quotes, not empty")]
ModelName = Annotated[NamedPath, BeforeValidator(partial(todays_word, "model.name"))]
Texts = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Write('a list of texts, such as ["first", "second"]')]
Count = Annotated[Whole, Write("a whole number above 0")]
OptionalCount = Annotated[Whole | None, Write("a whole number above 0")]
CountFromZero = Annotated[int, Field(ge=0), Write("a whole number, 0 or above")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = Annotated[Positive, Write("a number above 0")]
MostEpochs = Annotated[float, Field(gt=0, le=1e6)]
OptionalEpochs = Annotated[MostEpochs | None, Write("a number above 0, and 1,000,000 at most")]
Every = Annotated[
    Literal["epoch", "never"] | Whole,
    BeforeValidator(_no_means_never),
    Write('"epoch", "never" or a whole number of steps above 0'),
]
Stage = Annotated[Literal["auto", 0, 1, 2, 3], BeforeValidator(_no_lookalike), Write('"auto", 0, 1, 2 or 3')]
Switch = Annotated[Literal["auto"] | bool, Write('"auto", true or false')]
AutoCount = Annotated[Literal["auto"] | Whole, Write('"auto" or a whole number above 0')]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), Write("a number of seconds, 0 (off) or above")]
OptionalDropout = Annotated[Annotated[float, Field(ge=0, lt=1)] | None, Write("a number from 0 (none) to below 1")]
SourceName = Annotated[
    Annotated[str, Field(min_length=1)] | dict[str, Annotated[str, Field(min_length=1)]],
    BeforeValidator(partial(todays_word, "data.source")),
    AfterValidator(with_home),
    Write(
        '"hub", "hub:NAME", "synthetic", a folder of GLUE files, '
        'or a table such as {train = "a.csv", validation = "b.csv"}'
    ),
]
ClassWeights = Annotated[
    Literal["none", "balanced"] | tuple[Positive, ...] | dict[str, Positive],
    BeforeValidator(as_tuple),
    Write('"none", "balanced", a list of numbers above 0 such as [1.0, 5.0], or a table such as {spam = 5.0}'),
]
