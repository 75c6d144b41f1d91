"""A probe's seat: what it is asked, how long it may take, and the way its facts go."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

LEFT_FOR_THE_END = 3.0
"""Seconds of the question's time that no single wait may use."""

_PATIENCE = 0.45
"""Share of the question's time that one wait for the others may take."""

TOKEN_SECONDS = 3.0
"""How long a file written on another node may take to appear: network file systems remember what was not there."""


@dataclass(frozen=True)
class Question:
    """What the doctor asks, the same of all seats.

    `hosts` are the nodes by seat, as the run names them; `master` and `port` are where seat 0 is met; `seconds` is what
    all answers may take; `token` tells this examination from any other; `run` is the run's plain tree; `packages` are
    the distributions to look for; `cpu`: GPUs are not to be used.
    """

    hosts: tuple[str, ...]
    master: str
    port: int
    seconds: float
    token: str
    run: Mapping[str, Any]
    packages: tuple[str, ...]
    cpu: bool

    @classmethod
    def read(cls, line: str) -> "Question":
        """Read the question's line."""
        fields = json.loads(line)
        own = {name: fields[name] for name in cls.__dataclass_fields__}
        return cls(**{**own, "hosts": tuple(fields["hosts"]), "packages": tuple(fields["packages"])})


class Seat:
    """One probe: its number, the question, its time, and the way its facts go."""

    def __init__(self, number: int, question: Question, out: TextIO) -> None:
        self.number, self.question = number, question
        self._out, self._end, self._lock = out, time.monotonic() + question.seconds, threading.Lock()

    @property
    def host(self) -> str:
        """This node as the run names it."""
        return self.question.hosts[self.number]

    @property
    def local(self) -> int:
        """How many seats of this node come before this one; those above 0 only take part in the all-reduce."""
        return self.question.hosts[: self.number].count(self.host)

    @property
    def left(self) -> float:
        """Seconds that a wait may take now, 0.5 at least."""
        return max(0.5, self._end - LEFT_FOR_THE_END - time.monotonic())

    @property
    def patience(self) -> float:
        """Seconds that a seat waits for the others at each meeting point."""
        return min(_PATIENCE * self.question.seconds, self.left)

    def tell(self, group: str, facts: Any) -> None:
        """Write a group of facts."""
        with self._lock:
            print(json.dumps({"seat": self.number, "group": group, "facts": facts}), file=self._out, flush=True)
