"""Checks NCCL's environment variables, which people set for one trouble and forget. Pure."""

from collections.abc import Iterator

from launcher.doctor.facts import ClusterFacts
from launcher.doctor.findings import Finding, names, warning

_SLOW = {
    "NCCL_P2P_DISABLE": (
        "1",
        "GPUs of a machine send to each other through the host's memory, not over NVLink",
    ),
    "NCCL_SHM_DISABLE": ("1", "GPUs of a machine may send to each other through the network"),
    "NCCL_IB_DISABLE": ("1", "machines send over TCP, not over InfiniBand or RoCE"),
    "NCCL_NET_GDR_LEVEL": ("0", "data for other machines goes through the host's memory"),
    "CUDA_LAUNCH_BLOCKING": ("1", "the host waits for every kernel"),
    "TORCH_NCCL_BLOCKING_WAIT": ("1", "the host waits for every collective"),
    "TORCH_DISTRIBUTED_DEBUG": ("DETAIL", "every collective is compared between the ranks"),
}
"""Variable -> the value that makes runs slow, and what it does."""


def nccl_settings(cluster: ClusterFacts) -> Iterator[Finding]:
    """Find variables that make runs on GPUs slow, and an interface that leads to no other machine."""
    if not cluster.on_gpus:
        return
    known = {node: facts.get("variables", {}) for node, facts in cluster.by_node("device").items()}
    for name, (value, effect) in _SLOW.items():
        nodes = [node for node, variables in known.items() if variables.get(name) == value]
        if nodes:
            yield warning("nccl", f"{name}={value} on {names(nodes)}: {effect}", f"unset {name}.")
    lonely = [node for node, variables in known.items() if variables.get("NCCL_SOCKET_IFNAME") in ("lo", "=lo")]
    if lonely and len(cluster.request.nodes) > 1:
        yield warning(
            "nccl",
            f"NCCL_SOCKET_IFNAME names the loopback interface on {names(lonely)}: no other machine can be reached",
            "unset NCCL_SOCKET_IFNAME, and ftlaunch sets the interface towards the first node.",
        )
