"""The facts of all nodes, as their probes told them (`ftsys.probe`), and what is expected of the nodes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftsys.config import RunConfig
from launcher.timeouts import DOCTOR_SECONDS


@dataclass(frozen=True)
class Answer:
    """What a probe told, by group, and how its process ended.

    `status` is None where it was ended for want of time; `errors` is the end of its standard error.
    """

    groups: Mapping[str, Any]
    status: int | None = 0
    errors: str = ""


@dataclass(frozen=True)
class Asked:
    """What a run expects of its nodes.

    `hosts` are the nodes by seat: a node that is there twice has a second probe, for the all-reduce alone.
    `ranks_per_node` is what was asked for, None where it follows from the GPUs. `requirements` maps the packages that
    must be there to the versions that will do ("" for any), `tested` to the one that was tested.
    """

    run: RunConfig
    backend: str
    hosts: tuple[str, ...]
    port: int
    port_is_named: bool = False
    """Whether the user named the port; a derived one gives way to the next where it is in use."""
    ranks_per_node: int | None = None
    cpu: bool = False
    seconds: float = DOCTOR_SECONDS
    """What all probes together may take; what has not been told by then is not judged."""
    requirements: Mapping[str, str] = field(default_factory=dict)
    tested: Mapping[str, str] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Each node once."""
        return tuple(dict.fromkeys(self.hosts))


@dataclass(frozen=True)
class Examined:
    """What is judged: what was expected, and the answers by seat; a seat whose probe said nothing has an empty one."""

    asked: Asked
    answers: Mapping[int, Answer]

    @property
    def run(self) -> RunConfig:
        """The run."""
        return self.asked.run

    def told(self, group: str) -> dict[str, Any]:
        """Node -> a group's facts, for the nodes that told it."""
        answers = {node: self.answers[self.asked.hosts.index(node)] for node in self.asked.nodes}
        return {node: answer.groups[group] for node, answer in answers.items() if group in answer.groups}

    def told_by_seats(self, group: str) -> dict[int, Any]:
        """Seat -> a group's facts, for the seats that told it."""
        return {seat: answer.groups[group] for seat, answer in self.answers.items() if group in answer.groups}

    @property
    def silent(self) -> tuple[str, ...]:
        """Nodes that told nothing at all."""
        return tuple(node for node in self.asked.nodes if not self.answers[self.asked.hosts.index(node)].groups)

    @property
    def gpus(self) -> dict[str, int]:
        """Node -> GPUs that torch sees and the run may use."""
        return {node: 0 if self.asked.cpu else len(facts["gpus"]) for node, facts in self.told("device").items()}

    @property
    def on_gpus(self) -> bool:
        """Whether the ranks compute on GPUs: any node has one that may be used."""
        return any(self.gpus.values())

    @property
    def ranks_per_node(self) -> int:
        """Ranks that each node runs: as asked for, else one a GPU of the first node, else one."""
        return self.asked.ranks_per_node or max(1, next(iter(self.gpus.values()), 1))

    @property
    def ranks(self) -> int:
        """Ranks of the run."""
        return self.ranks_per_node * len(self.asked.nodes)
