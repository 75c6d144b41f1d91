"""Checks files: shared folders, disk space for checkpoints, model and data, locks of dead compilers."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from launcher.doctor.facts import ClusterFacts
from launcher.doctor.findings import Finding, by_value, error, names, ok, warning
from launcher.planner.cost.disk import (
    bytes_at_least,
    bytes_at_most,
    checkpoint_bytes,
    most_checkpoints,
    size_text,
)


def folders(cluster: ClusterFacts) -> Iterator[Finding]:
    """Check that all nodes can write the run folder and share it; the same for the stores' folder, as a warning."""
    known = cluster.by_node("folders")
    for key in dict.fromkeys(key for facts in known.values() for key in facts):
        places = {node: facts[key] for node, facts in known.items() if key in facts}
        refused = {node: f"{place['folder']}: {place['error']}" for node, place in places.items() if place["error"]}
        if refused:
            yield error(
                key, f"cannot be written: {by_value(refused)}", f"name a folder in {key} that you may write to."
            )
            continue
        yield from _shared(cluster, key, {node: place["folder"] for node, place in places.items()})


def _shared(cluster: ClusterFacts, key: str, places: Mapping[str, str]) -> Iterator[Finding]:
    where = by_value(places) if len(set(places.values())) > 1 else next(iter(places.values()))
    if len(places) == 1:
        yield ok(key, f"{where} can be written on {next(iter(places))}")
        return
    seen_by = cluster.by_node("tokens")
    if not seen_by:
        value = f"{where} can be written on {len(places)} nodes; whether they share it was not tested"
        yield warning(key, value, "they have to meet for it: see the findings about the rendezvous.")
        return
    probes = {cluster.request.hosts.index(node): node for node in places}
    unseen = {
        node: [probes[number] for number in probes if number not in seen.get(key, [])] for node, seen in seen_by.items()
    }
    blind = {node: others for node, others in unseen.items() if others}
    if not blind:
        yield ok(key, f"{where} is shared by {len(places)} nodes and can be written")
        return
    node, others = next(iter(blind.items()))
    value = f"{where} is not shared: {node} does not see what {names(others)} wrote there"
    if key == "output_dir":
        yield error(key, value, "name a folder on storage that all nodes mount: every rank reads checkpoints.")
    else:
        yield warning(
            key, f"{value}; each node would tokenize by itself", f"set {key} to a folder that all nodes mount."
        )


def disk(cluster: ClusterFacts) -> Iterator[Finding]:
    """Compare the free disk space with what the run writes, at least and at most: checkpoints and the model."""
    known = {
        node: facts["output_dir"]["free"] for node, facts in cluster.by_node("folders").items() if "output_dir" in facts
    }
    sizes = cluster.parameters, cluster.frozen
    free = {node: value for node, value in known.items() if value is not None}
    if not cluster.parameters or not free:
        return
    node = min(free, key=lambda node: free[node])
    least, most = bytes_at_least(cluster.run, *sizes), bytes_at_most(cluster.run, *sizes)
    here = f"{size_text(free[node])} free for output_dir on {node}"
    wanted = (
        f"{here}, {size_text(most)} needed: {most_checkpoints(cluster.run.train)} checkpoint(s) of "
        f"{size_text(checkpoint_bytes(*sizes))} at most, and the model"
    )
    if free[node] < least:
        value = f"{here}, {size_text(least)} needed at least, for the model and its checkpoints"
        yield error("disk", value, "free disk space, or name another output_dir.")
    elif free[node] < most:
        yield warning("disk", wanted, "free disk space, or keep fewer checkpoints: train.save_keep.")
    else:
        yield ok("disk", wanted)


def inputs(cluster: ClusterFacts) -> Iterator[Finding]:
    """Check that model and data can be read without a network, and that all nodes have the same model."""
    known = cluster.by_node("inputs")
    for part, key in (("model", "model.name"), ("data", "data.source")):
        found = {node: facts[part] for node, facts in known.items()}
        missing = {node: facts["error"] for node, facts in found.items() if facts["error"]}
        unusable = {node: facts["error"] for node, facts in found.items() if facts["error"] and facts.get("folder")}
        if unusable:
            yield error(part, by_value(unusable), f"correct that, or {key}: a start would refuse it.")
        elif missing:
            yield _missing(part, key, missing, {node: bool(known[node]["hub"]) for node in missing}, cluster)
        elif found:
            yield ok(part, _there(cluster, part, found))
    parameters = {
        node: facts["model"].get("parameters") for node, facts in known.items() if not facts["model"]["error"]
    }
    if len(set(parameters.values())) > 1:
        value = f"the nodes' copies differ in their parameters: {by_value(parameters)}"
        yield error("model", value, "let all nodes read one copy: name a shared folder in model.name.")


def _missing(
    part: str, key: str, missing: Mapping[str, str], hub: Mapping[str, bool], cluster: ClusterFacts
) -> Finding:
    by_hub = part == "model" or str(cluster.run.data.source).startswith("hub")
    bundle = "run `ftlaunch bundle` on a machine with a network: it collects all files in a folder"
    if by_hub and all(hub.values()):
        value = f"not here yet: {by_value(missing)}"
        return warning(part, value, f"the Hub answers, so the start downloads it; or {bundle}.")
    return error(part, by_value(missing), f"correct {key}, or {bundle}.")


def _there(cluster: ClusterFacts, part: str, found: Mapping[str, Any]) -> str:
    run = cluster.run
    if run.bundle is not None:
        return f"in the bundle {run.bundle}"
    if part == "data":
        return f"{run.data.source!r} can be read; {_store(cluster)}"
    millions = max(facts["parameters"] for facts in found.values()) / 1e6
    return f"{run.model.name!r} is there, {millions:.1f} million parameters"


def _store(cluster: ClusterFacts) -> str:
    stores = cluster.by_node("store")
    if not stores:
        return "its store was not looked for in time"
    made = [node for node, store in stores.items() if store]
    if len(made) == len(stores):
        return "its store is ready"
    return "its store is not ready yet, the start makes it" + (f" except on {names(made)}" if made else "")


def locks(cluster: ClusterFacts) -> Iterator[Finding]:
    """Find locks in torch's compile cache whose holder is dead: every process that needs the op waits forever."""
    known = cluster.by_node("locks")
    found: dict[tuple[object, ...], dict[str, Any]] = {}
    for node, each in known.items():
        for lock in each:
            entry = found.setdefault((lock["path"], *lock["file"]), {**lock, "nodes": [], "held": None})
            entry["nodes"].append(node)
            entry["held"] = entry["held"] or (lock["holder"] and f"process {lock['holder']} on {node}")
    for lock in found.values():
        yield _lock(cluster, lock)
    if known and not found:
        yield ok("locks", "none in torch's compile cache")


def _lock(cluster: ClusterFacts, lock: Mapping[str, Any]) -> Finding:
    where = f"{lock['path']} on {names(lock['nodes'])}"
    if lock["held"]:
        return warning(
            "locks", f"{where}: {lock['held']} is compiling {lock['op']!r}", "ranks that need the op wait for it."
        )
    needed = cluster.run.engine.offload != "none" and cluster.on_gpus
    value = f"{where}: left by a dead process; every process that needs {lock['op']!r} waits forever"
    advice = f"if no other machine is compiling right now: rm {shlex.quote(lock['path'])}"
    return (error if needed else warning)("locks", value, advice)
