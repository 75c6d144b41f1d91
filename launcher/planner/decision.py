"""Pairs a value that the planner chose with the reason for it."""

from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value", covariant=True)


@dataclass(frozen=True)
class Decision(Generic[Value]):
    """A chosen value and its reason, in the words that `ftlaunch plan` prints."""

    value: Value
    why: str
