"""Checks the devices of the nodes: GPUs, their kernels, number formats, and the run's plan for them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftsys.errors import ConfigError
from launcher.doctor.facts import ClusterFacts
from launcher.doctor.findings import Finding, by_value, error, names, ok, warning
from launcher.planner.deepspeed_config import user_json_of
from launcher.planner.plan import Plan, make_plan
from launcher.planner.world import World

USED_MEBIBYTES = 1024
"""A GPU with more used memory than this counts as busy."""


def gpus(cluster: ClusterFacts) -> Iterator[Finding]:
    """Find GPUs that are missing, different, broken or busy; without GPUs, report the CPUs."""
    devices = cluster.by_node("device")
    if not devices:
        return
    yield from _unseen(cluster, devices)
    if not cluster.on_gpus:
        yield ok("device", f"CPU, {cluster.ranks_per_node} rank(s) on each of {len(cluster.request.nodes)} node(s)")
        return
    ranks = cluster.request.ranks_per_node or 0
    few = {node: f"{count} GPU(s)" for node, count in cluster.gpus.items() if count < ranks}
    if few:
        yield error(
            "gpus",
            f"{by_value(few)} for {ranks} rank(s) on each node",
            "ask for fewer ranks (launch.gpus_per_node), leave those nodes out, or see `nvidia-smi` there.",
        )
    yield from _different(cluster, devices)
    for node, facts in devices.items():
        yield from _each_gpu(cluster, node, facts)
    if not few:
        yield ok("gpus", by_value({node: _kinds(facts) for node, facts in devices.items()}))


def _unseen(cluster: ClusterFacts, devices: Mapping[str, Any]) -> Iterator[Finding]:
    """Find GPUs that the driver lists and torch does not see."""
    for node, facts in devices.items():
        if facts["driver"] and not facts["gpus"] and not cluster.request.cpu:
            cpu_build = facts["cuda_build"] is None
            why = "it is built for CPUs" if cpu_build else f"it is built for CUDA {facts['cuda_build']}"
            yield error(
                "gpus",
                f"{node}: the driver lists {len(facts['driver'])} GPU(s), torch {facts['torch']} sees none: {why}",
                "install torch's CUDA build." if cpu_build else "the driver may be too old for it: see `nvidia-smi`.",
            )


def _different(cluster: ClusterFacts, devices: Mapping[str, Any]) -> Iterator[Finding]:
    kinds = {node: _kinds(facts) for node, facts in devices.items()}
    if cluster.request.ranks_per_node is None and len(set(cluster.gpus.values())) > 1:
        yield error(
            "gpus",
            f"the nodes have different numbers of GPUs: {by_value(kinds)}",
            "write launch.gpus_per_node, or use other nodes.",
        )
    elif len(set(kinds.values())) > 1:
        yield warning(
            "gpus", f"different models: {by_value(kinds)}", "the slowest GPU sets the speed: use nodes of one kind."
        )


def _kinds(facts: Mapping[str, Any]) -> str:
    kinds = [gpu["name"] for gpu in facts["gpus"]]
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)) or "no GPU"


def _each_gpu(cluster: ClusterFacts, node: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    broken = [f"GPU {number}: {gpu['error']}" for number, gpu in enumerate(facts["gpus"]) if gpu["error"]]
    if broken:
        yield error(
            "gpus",
            f"{node}: a small matrix product fails on {'; '.join(broken)}",
            "see `nvidia-smi` there; torch may be built without this kind of GPU, or another process may hold it.",
        )
    for gpu in facts["driver"] or ():
        if gpu["processes"] or _used(gpu) > USED_MEBIBYTES:
            who = gpu["processes"] or "processes of another container"
            finding = error if gpu["compute_mode"] == "Exclusive_Process" else warning
            yield finding(
                "gpus",
                f"{node}: GPU {gpu['index']} is busy, {gpu['memory.used']} of {gpu['memory.total']} MiB used by {who}",
                "wait, or list only the other GPUs in CUDA_VISIBLE_DEVICES.",
            )


def _used(gpu: Mapping[str, str]) -> int:
    return int(gpu["memory.used"]) if gpu["memory.used"].isdecimal() else 0


def plan(cluster: ClusterFacts) -> Iterator[Finding]:
    """Make the run's plan for these nodes, and check that their devices compute its number format."""
    if not cluster.by_node("device"):
        return
    try:
        made = _plan(cluster)
    except ConfigError as failure:
        for message in failure.messages:
            value, _, advice = message.rpartition(": ")
            yield error("plan", value, advice)
        return
    yield ok("plan", f"{made.ranks} {made.device} rank(s), {made.backend}, ZeRO {made.zero_stage}, {made.precision}")
    yield from _precision(cluster, made)


def kernels(cluster: ClusterFacts) -> Iterator[Finding]:
    """Check that each GPU node can compile the Triton kernels. Ranks agree: one that cannot slows all of them down."""
    known = {node: facts["triton"] for node, facts in cluster.by_node("device").items() if "triton" in facts}
    lacking = {node: reason for node, reason in known.items() if reason is not None}
    if not cluster.on_gpus or not known:
        return
    if not lacking:
        yield ok("kernels", f"Triton can compile the GPU kernels on {names(list(known))}")
        return
    demanded = cluster.run.engine.kernels == "triton" or any(map(_is_refused, lacking.values()))
    finding, effect = (error, "the run is refused") if demanded else (warning, "no rank uses the Triton kernels")
    yield finding("kernels", f"{effect}: {by_value(lacking)}", _how_to_get_triton(list(lacking.values())))


def _how_to_get_triton(reasons: Sequence[str]) -> str:
    """Return the advice for the reasons that `ftsys.kernels.gpu_needs.why_not_triton` gives."""
    if any(map(_is_refused, reasons)):
        return "set TRITON_CACHE_DIR to a folder of your own."
    if any("capability" in reason for reason in reasons):
        return 'use GPUs of compute capability 8.0 or higher, or write engine.kernels = "padded".'
    if any("header" in reason for reason in reasons):
        return "install Python's header files there (python3-dev on Debian and Ubuntu)."
    if any("compiler" in reason for reason in reasons):
        return "install gcc there, or name a C compiler in the variable CC."
    return "install Triton there: it comes with torch's CUDA build for Linux."


def _is_refused(reason: str) -> bool:
    """Return True for a cache that others may write to: the ranks do not go on without it."""
    return "holds code that would be run" in reason


def _plan(cluster: ClusterFacts) -> Plan:
    run = cluster.run
    world = World(
        ranks=cluster.ranks,
        nodes=len(cluster.request.nodes),
        local_ranks=cluster.ranks_per_node,
        device="cuda" if cluster.on_gpus else "cpu",
        bf16_supported=all(_bf16(cluster).values()),
    )
    return make_plan(run, world, deepspeed_json=user_json_of(run))


def _bf16(cluster: ClusterFacts) -> dict[str, bool]:
    """Return node -> True if its devices compute bf16 in hardware."""
    kind = "bf16" if cluster.on_gpus else "cpu_bf16"
    return {node: bool(facts.get(kind, False)) for node, facts in cluster.by_node("device").items()}


def _precision(cluster: ClusterFacts, made: Plan) -> Iterator[Finding]:
    formats = _bf16(cluster)
    without = [node for node, has in formats.items() if not has]
    if cluster.run.engine.precision == "auto" and 0 < len(without) < len(formats):
        yield error(
            "precision",
            f"no bf16 on {names(without)}, bf16 on the others: with engine.precision = 'auto' the ranks would differ",
            'write engine.precision = "fp32" or "fp16", or use nodes of one kind.',
        )
    elif made.precision == "bf16" and without:
        yield warning(
            "precision",
            f"the {made.device} of {names(without)} has no bf16 arithmetic: it is emulated in fp32, slowly",
            'write engine.precision = "fp32"' + (' or "fp16".' if made.device == "cuda" else "."),
        )
