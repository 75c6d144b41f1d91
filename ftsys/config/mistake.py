"""Defines a mistake in a run file, and the kinds of values that its keys accept, each with the words for a message.

Mistakes are collected, not raised, so that all of them are reported together.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field


@dataclass(frozen=True)
class Mistake:
    """A message, and the dotted keys that it is about."""

    text: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Write:
    """Tells the user which values a field accepts; the second half of its error messages."""

    text: str


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def no_lookalike(value: Any) -> Any:
    if isinstance(value, bool | float):  # Literal[0, 1] accepts False, True and 1.0 as equal values
        raise ValueError("no whole number")
    return value


def one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


def no_means_never(value: Any) -> Any:
    return "never" if value == "no" else value


def known_offload(value: str) -> str:
    """Return the value if it is a kind of offload; raises ValueError otherwise, as pydantic's validators do."""
    if value in ("none", "optimizer", "parameters") or (value.startswith("nvme:/") and value != "nvme:/"):
        return value
    raise ValueError("no known offload")


Whole = Annotated[int, Field(gt=0)]
Text = Annotated[str, Field(min_length=1), Write("text in quotes, not empty")]
Texts = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Write('a list of texts, such as ["first", "second"]')]
Count = Annotated[Whole, Write("a whole number above 0")]
OptionalCount = Annotated[Whole | None, Write("a whole number above 0")]
CountFromZero = Annotated[int, Field(ge=0), Write("a whole number, 0 or above")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = Annotated[Positive, Write("a number above 0")]
OptionalNumber = Annotated[Positive | None, Write("a number above 0")]
Every = Annotated[
    Literal["epoch", "never"] | Whole,
    BeforeValidator(no_means_never),
    Write('"epoch", "never" or a whole number of steps above 0'),
]
Stage = Annotated[Literal["auto", 0, 1, 2, 3], BeforeValidator(no_lookalike), Write('"auto", 0, 1, 2 or 3')]
Switch = Annotated[Literal["auto"] | bool, Write('"auto", true or false')]
AutoCount = Annotated[Literal["auto"] | Whole, Write('"auto" or a whole number above 0')]
Offload = Annotated[str, AfterValidator(known_offload), Write('"none", "optimizer", "parameters" or "nvme:/path"')]
Parts = Annotated[
    tuple[str, ...],
    BeforeValidator(one_or_several),
    Write('a part such as "embeddings", or a list such as ["embeddings", "layers.0-3"]'),
]
Targets = Annotated[
    tuple[str, ...], BeforeValidator(one_or_several), Write('"auto", "all" or a list such as ["query", "value"]')
]
