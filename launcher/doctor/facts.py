"""Holds the facts that the probes of all nodes report (`ftsys.probe`), and the request to check them against. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftsys.config import RunConfig
from launcher.timeouts import DOCTOR_SECONDS


@dataclass(frozen=True)
class ProbeOutput:
    """The facts that one probe reported, by group, and the end of its process.

    `status`: None if it was killed at the time limit. `errors`: the end of its standard error.
    """

    groups: Mapping[str, Any]
    status: int | None = 0
    errors: str = ""


@dataclass(frozen=True)
class CheckRequest:
    """The run and the nodes to check, and what they must provide.

    `hosts`: the host of each probe; a host that is listed twice has a second probe, for the all-reduce alone.
    `ranks_per_node`: as requested, None if it follows from the GPUs. `requirements`: package -> versions that work (""
    for any). `tested`: package -> version that was tested.
    """

    run: RunConfig
    backend: str
    hosts: tuple[str, ...]
    port: int
    port_is_named: bool = False
    """True if the user named the port. A derived one is replaced by the next one if it is in use."""
    ranks_per_node: int | None = None
    cpu: bool = False
    seconds: float = DOCTOR_SECONDS
    """Time limit of all probes together. Facts that come later are not checked."""
    requirements: Mapping[str, str] = field(default_factory=dict)
    tested: Mapping[str, str] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Each node once."""
        return tuple(dict.fromkeys(self.hosts))


@dataclass(frozen=True)
class ClusterFacts:
    """The request, and the output of every probe by its number; a probe that reported nothing has no groups."""

    request: CheckRequest
    outputs: Mapping[int, ProbeOutput]

    @property
    def run(self) -> RunConfig:
        """The run."""
        return self.request.run

    def by_node(self, group: str) -> dict[str, Any]:
        """Return node -> facts of a group, for the nodes that reported it."""
        outputs = {node: self._output_of(node) for node in self.request.nodes}
        return {node: output.groups[group] for node, output in outputs.items() if group in output.groups}

    def by_probe(self, group: str) -> dict[int, Any]:
        """Return probe number -> facts of a group, for the probes that reported it."""
        return {number: output.groups[group] for number, output in self.outputs.items() if group in output.groups}

    @property
    def unreachable(self) -> tuple[str, ...]:
        """Nodes that reported nothing at all."""
        return tuple(node for node in self.request.nodes if not self._output_of(node).groups)

    def _output_of(self, node: str) -> ProbeOutput:
        return self.outputs[self.request.hosts.index(node)]

    @property
    def gpus(self) -> dict[str, int]:
        """Node -> GPUs that torch sees and the run may use."""
        return {node: 0 if self.request.cpu else len(facts["gpus"]) for node, facts in self.by_node("device").items()}

    @property
    def on_gpus(self) -> bool:
        """True if the ranks compute on GPUs: a node has one that the run may use."""
        return any(self.gpus.values())

    @property
    def ranks_per_node(self) -> int:
        """Ranks on each node: as requested, else one for each GPU of the first node, else one."""
        return self.request.ranks_per_node or max(1, next(iter(self.gpus.values()), 1))

    @property
    def parameters(self) -> int:
        """Parameters of the model, 0 if no node could read it."""
        return max((facts["model"].get("parameters", 0) for facts in self.by_node("inputs").values()), default=0)

    @property
    def frozen(self) -> int:
        """Parameters of the model that the run does not train."""
        counts = (facts["model"].get("frozen", 0) for facts in self.by_node("inputs").values())
        return min(self.parameters, max(counts, default=0))

    @property
    def ranks(self) -> int:
        """Ranks of the run."""
        return self.ranks_per_node * len(self.request.nodes)
