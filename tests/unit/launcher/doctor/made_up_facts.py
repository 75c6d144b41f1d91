"""Makes up facts of nodes for the doctor's tests: two healthy nodes, and changes that break them."""

import copy
from collections.abc import Callable
from typing import Any

from ftsys.config import RunConfig, build_run
from launcher.doctor.checks import run_checks
from launcher.doctor.facts import CheckRequest, ClusterFacts, ProbeOutput
from launcher.doctor.findings import Finding

Groups = dict[str, Any]
Harm = Callable[[dict[str, Groups]], object]

NEEDED = {"torch": ">=2.11", "transformers": ">=5.17,<5.24"}
GPU = {"name": "H100", "error": None, "free": 80e9, "total": 80e9}
DRIVER = {"index": "0", "name": "H100", "memory.total": "81559", "memory.used": "4", "compute_mode": "Default"}


def run_of(**sections: Any) -> RunConfig:
    return build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, **sections})


def good(node: str, gpus: int = 0) -> Groups:
    """Return the facts of a healthy node."""
    address = f"10.0.0.{node[-1]}"
    look_up = {"answer": [address], "seconds": 0.001}
    return {
        "machine": {
            "host": node,
            "python": "3.11.7",
            "packages": {"torch": "2.13.0+cpu", "transformers": "5.23.0"},
            "sources": "abc123",
            "cpus": {"cores": 8, "cpus": 16, "quota": None, "threads": None},
        },
        "folders": {
            "output_dir": {"folder": "/shared/runs", "error": None, "free": 500e9},
            "data.store": {"folder": "/shared/stores", "error": None, "free": 500e9},
        },
        "names": {
            "own": node,
            "forward": {node: look_up},
            "reverse": {address: {"answer": node, "seconds": 0.001}},
        },
        "device": {
            "torch": "2.13.0+cpu",
            "cuda_build": "13.0" if gpus else None,
            "cpu_bf16": True,
            "bf16": True,
            "gpus": [dict(GPU) for _ in range(gpus)],
            "driver": [{**DRIVER, "index": str(number), "processes": ""} for number in range(gpus)] or None,
        },
        "clock": 1000.0,
        "rendezvous": {"error": None, "seconds": 0.2, "connected": 0.1, "absent": []},
        "tokens": {"output_dir": [0, 1], "data.store": [0, 1]},
        "all_reduce": {"backend": "gloo", "megabytes": 16, "mb_per_s": 1100.0, "error": None, "seconds": 0.2},
        "locks": [],
        "inputs": {
            "model": {"error": None, "folder": "/m", "parameters": 110_000_000, "frozen": 0},
            "data": {"error": None},
            "hub": None,
        },
        "store": "/shared/stores/0123",
        "end": {},
    }


def cluster(
    harm: Harm = lambda nodes: None, *, gpus: int = 0, run: RunConfig | None = None, **request: Any
) -> ClusterFacts:
    """Return two healthy nodes after `harm` has changed their facts; a node without facts does not answer."""
    nodes = {name: copy.deepcopy(good(name, gpus)) for name in ("node1", "node2")}
    harm(nodes)
    outputs = {
        number: ProbeOutput(groups, 0, "")
        if groups
        else ProbeOutput({}, 255, "ssh: connect to host: Connection refused\n")
        for number, groups in enumerate(nodes.values())
    }
    expected: dict[str, Any] = {"backend": "hostfile", "port": 12345, "requirements": NEEDED, **request}
    return ClusterFacts(CheckRequest(run or run_of(), hosts=("node1", "node2"), **expected), outputs)


def bad(found: ClusterFacts) -> list[Finding]:
    return [each for each in run_checks(found) if each.severity != "ok"]


def put(node: str, path: str, value: Any) -> Harm:
    """Return a harm that sets one fact, by its path."""

    def harm(nodes: dict[str, Groups]) -> None:
        *way, last = path.split("/")
        facts: Any = nodes[node]
        for step in way:
            facts = facts[int(step)] if isinstance(facts, list) else facts[step]
        facts[last] = value

    return harm
