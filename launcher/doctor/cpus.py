"""Checks the CPUs of the nodes: what the cgroup's quota leaves of them, and a number of threads that exceeds it."""

from collections.abc import Iterator, Mapping
from typing import Any

from launcher.doctor.facts import ClusterFacts
from launcher.doctor.findings import Finding, by_value, names, ok, warning


def cpus(cluster: ClusterFacts) -> Iterator[Finding]:
    """Report the cores and quotas, and find more threads than a node may run at a time."""
    machines = cluster.by_node("machine")
    known = {node: facts["cpus"] for node, facts in machines.items() if "cpus" in facts}
    if not known:
        return
    yield ok("cpus", by_value({node: _described(facts) for node, facts in known.items()}))
    ranks = cluster.ranks_per_node
    over = {node: facts for node, facts in known.items() if (facts["threads"] or 0) * ranks > _runnable(facts)}
    if over:
        threads = {node: f"OMP_NUM_THREADS={facts['threads']}" for node, facts in over.items()}
        yield warning(
            "threads",
            f"{by_value(threads)} for each of {ranks} rank(s), more than {names(list(over))} can run at a time",
            "unset OMP_NUM_THREADS: each rank then gets its share of what the node may use.",
        )


def _runnable(facts: Mapping[str, Any]) -> float:
    """Return the threads that run at a time: the CPUs, or the quota where it is smaller."""
    return min(float(facts["cpus"]), facts["quota"] or float("inf"))


def _described(facts: Mapping[str, Any]) -> str:
    cores = f"{facts['cores']} core(s)"
    limited = facts["quota"] is not None and facts["quota"] < facts["cores"]
    return f"{cores}, of which the cgroup gives {facts['quota']:g}" if limited else cores
