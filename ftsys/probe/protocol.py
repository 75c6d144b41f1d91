"""Defines what a probe is asked, its time limits, and the format of its report."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

LEFT_FOR_THE_END = 3.0
"""Seconds of the question's time that are kept for the end: no single wait may use them."""

_PATIENCE = 0.45
"""Fraction of the question's time that one wait for the other probes may take."""

TOKEN_SECONDS = 3.0
"""Time limit for a file of another node to appear: network file systems cache that a file does not exist."""


@dataclass(frozen=True)
class Question:
    """Holds the doctor's question, the same for all probes.

    `hosts` are the hosts of the probes by number, as the run names them. `master` and `port` are the address of
    probe 0's store. `seconds` is the time limit of all answers together. `token` is unique to this check. `run` is the
    run file as a plain tree. `packages` are the distributions to look for. `cpu` is True if GPUs must not be used.
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
        """Parse the question from its line of JSON; ignore fields that only the launcher uses."""
        fields = json.loads(line)
        own = {name: fields[name] for name in cls.__dataclass_fields__}
        return cls(**{**own, "hosts": tuple(fields["hosts"]), "packages": tuple(fields["packages"])})


class Probe:
    """Holds one probe's number, question and deadline, and writes its facts to `out`."""

    def __init__(self, number: int, question: Question, out: TextIO) -> None:
        self.number, self.question = number, question
        self._out, self._end, self._lock = out, time.monotonic() + question.seconds, threading.Lock()

    @property
    def host(self) -> str:
        """Return this node's host, as the run names it."""
        return self.question.hosts[self.number]

    @property
    def local_number(self) -> int:
        """Return the number of probes of this node before this one; one above 0 only takes part in the all-reduce."""
        return self.question.hosts[: self.number].count(self.host)

    @property
    def left(self) -> float:
        """Return the seconds that a wait may take now, at least 0.5."""
        return max(0.5, self._end - LEFT_FOR_THE_END - time.monotonic())

    @property
    def patience(self) -> float:
        """Return the seconds that a probe waits for the others at each meeting point."""
        return min(_PATIENCE * self.question.seconds, self.left)

    def report(self, group: str, facts: Any) -> None:
        """Write one group of facts."""
        with self._lock:
            self._out.write(json.dumps({"probe": self.number, "group": group, "facts": facts}) + "\n")
            self._out.flush()
