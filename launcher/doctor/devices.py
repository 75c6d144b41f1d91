"""Judges what the nodes compute on: GPUs, number formats, and whether the run's plan works there at all."""

from collections.abc import Iterator, Mapping
from typing import Any

from ftsys.errors import ConfigError
from launcher.doctor.facts import Examined
from launcher.doctor.findings import Finding, by_value, error, names, ok, warning
from launcher.planner.deepspeed_config import read_user_json
from launcher.planner.plan import Plan, World, make_plan

USED_MEBIBYTES = 1024
"""Memory of a GPU that counts as somebody's at work."""


def gpus(examined: Examined) -> Iterator[Finding]:
    """GPUs that are missing, unlike, broken or busy; or the CPUs, where there are none."""
    devices = examined.told("device")
    if not devices:
        return
    yield from _unseen(examined, devices)
    if not examined.on_gpus:
        yield ok("device", f"CPU, {examined.ranks_per_node} rank(s) on each of {len(examined.asked.nodes)} node(s)")
        return
    asked = examined.asked.ranks_per_node or 0
    few = {node: f"{count} GPU(s)" for node, count in examined.gpus.items() if count < asked}
    if few:
        yield error(
            "gpus",
            f"{by_value(few)} for {asked} rank(s) a node",
            "ask for fewer ranks (launch.gpus_per_node), leave those nodes out, or see `nvidia-smi` there.",
        )
    yield from _unlike(examined, devices)
    for node, facts in devices.items():
        yield from _each_gpu(examined, node, facts)
    if not few:
        yield ok("gpus", by_value({node: _kinds(facts) for node, facts in devices.items()}))


def _unseen(examined: Examined, devices: Mapping[str, Any]) -> Iterator[Finding]:
    """GPUs that the driver shows and torch does not see."""
    for node, facts in devices.items():
        if facts["driver"] and not facts["gpus"] and not examined.asked.cpu:
            cpu_build = facts["cuda_build"] is None
            why = "it is built for CPUs" if cpu_build else f"it is built for CUDA {facts['cuda_build']}"
            yield error(
                "gpus",
                f"{node}: the driver shows {len(facts['driver'])} GPU(s), torch {facts['torch']} sees none: {why}",
                "install torch's CUDA build." if cpu_build else "the driver may be too old for it: see `nvidia-smi`.",
            )


def _unlike(examined: Examined, devices: Mapping[str, Any]) -> Iterator[Finding]:
    kinds = {node: _kinds(facts) for node, facts in devices.items()}
    if examined.asked.ranks_per_node is None and len(set(examined.gpus.values())) > 1:
        yield error(
            "gpus", f"not as many on each node: {by_value(kinds)}", "write launch.gpus_per_node, or other nodes."
        )
    elif len(set(kinds.values())) > 1:
        yield warning("gpus", f"not alike: {by_value(kinds)}", "the slowest sets the pace: take nodes of one kind.")


def _kinds(facts: Mapping[str, Any]) -> str:
    kinds = [gpu["name"] for gpu in facts["gpus"]]
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)) or "no GPU"


def _each_gpu(examined: Examined, node: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    broken = [f"GPU {number}: {gpu['error']}" for number, gpu in enumerate(facts["gpus"]) if gpu["error"]]
    if broken:
        yield error(
            "gpus",
            f"{node}: a small product fails on {'; '.join(broken)}",
            "see `nvidia-smi` there; torch may be built without this kind of GPU, or another process holds it.",
        )
    for gpu in facts["driver"] or ():
        if gpu["processes"] or _used(gpu) > USED_MEBIBYTES:
            who = gpu["processes"] or "processes of another container"
            judge = error if gpu["compute_mode"] == "Exclusive_Process" else warning
            yield judge(
                "gpus",
                f"{node}: GPU {gpu['index']} is busy, {gpu['memory.used']} of {gpu['memory.total']} MiB used by {who}",
                "wait for it or leave it out: CUDA_VISIBLE_DEVICES names those to use.",
            )


def _used(gpu: Mapping[str, str]) -> int:
    return int(gpu["memory.used"]) if gpu["memory.used"].isdecimal() else 0


def plan(examined: Examined) -> Iterator[Finding]:
    """The run's plan for these nodes, and whether their devices compute its number format."""
    if not examined.told("device"):
        return
    try:
        made = _plan(examined)
    except ConfigError as failure:
        for message in failure.messages:
            value, _, advice = message.rpartition(": ")
            yield error("plan", value, advice)
        return
    yield ok("plan", f"{made.ranks} {made.device} rank(s), {made.backend}, ZeRO {made.zero_stage}, {made.precision}")
    yield from _precision(examined, made)


def _plan(examined: Examined) -> Plan:
    run, formats = examined.run, _bf16(examined)
    world = World(
        ranks=examined.ranks,
        nodes=len(examined.asked.nodes),
        local_ranks=examined.ranks_per_node,
        device="cuda" if examined.on_gpus else "cpu",
        bf16_supported=all(formats.values()),
    )
    own = read_user_json(run.engine.deepspeed) if run.engine.deepspeed else None
    return make_plan(run, world, deepspeed_json=own)


def _bf16(examined: Examined) -> dict[str, bool]:
    """Node -> whether its devices have bf16 arithmetic of their own."""
    kind = "bf16" if examined.on_gpus else "cpu_bf16"
    return {node: bool(facts.get(kind, False)) for node, facts in examined.told("device").items()}


def _precision(examined: Examined, made: Plan) -> Iterator[Finding]:
    formats = _bf16(examined)
    without = [node for node, has in formats.items() if not has]
    if examined.run.engine.precision == "auto" and 0 < len(without) < len(formats):
        yield error(
            "precision",
            f"no bf16 on {names(without)}, bf16 on the others: with engine.precision = 'auto' the ranks would differ",
            'write engine.precision = "fp32" or "fp16", or take nodes of one kind.',
        )
    elif made.precision == "bf16" and without:
        yield warning(
            "precision",
            f"no bf16 arithmetic in the {made.device} of {names(without)}: it is computed by way of fp32, slowly",
            'write engine.precision = "fp32"' + (' or "fp16".' if made.device == "cuda" else "."),
        )
