"""Judges what lies on disks: shared folders, room for checkpoints, model and data, locks of dead compilers."""

from collections.abc import Iterator, Mapping
from typing import Any

from launcher.doctor.facts import Examined
from launcher.doctor.findings import Finding, by_value, error, names, ok, warning

CHECKPOINT_BYTES = 12
"""A parameter's bytes in a checkpoint: its weight and two moments, in fp32."""

MODEL_BYTES = 4
"""A parameter's bytes in the model that the run leaves at its end."""


def folders(examined: Examined) -> Iterator[Finding]:
    """The run folder is writable and the same for all; the stores' folder better be."""
    told = examined.told("folders")
    for key in dict.fromkeys(key for facts in told.values() for key in facts):
        places = {node: facts[key] for node, facts in told.items() if key in facts}
        refused = {node: f"{place['folder']}: {place['error']}" for node, place in places.items() if place["error"]}
        if refused:
            yield error(
                key, f"cannot be written: {by_value(refused)}", f"name a folder in {key} that you may write to."
            )
            continue
        yield from _shared(examined, key, {node: place["folder"] for node, place in places.items()})


def _shared(examined: Examined, key: str, places: Mapping[str, str]) -> Iterator[Finding]:
    where = by_value(places) if len(set(places.values())) > 1 else next(iter(places.values()))
    if len(places) == 1:
        yield ok(key, f"{where} can be written on {next(iter(places))}")
        return
    seats = {examined.asked.hosts.index(node): node for node in places}
    unseen = {
        node: [seats[seat] for seat in seats if seat not in seen.get(key, [])]
        for node, seen in examined.told("tokens").items()
    }
    blind = {node: others for node, others in unseen.items() if others}
    if not blind:
        yield ok(key, f"{where} is shared by {len(places)} nodes and can be written")
        return
    node, others = next(iter(blind.items()))
    value = f"{where} is not shared: {node} does not see what {names(others)} wrote there"
    if key == "output_dir":
        yield error(key, value, "name a folder on storage that all nodes mount: checkpoints are read by every rank.")
    else:
        yield warning(
            key, f"{value}; each node would tokenize for itself", f"set {key} to a folder that all nodes mount."
        )


def disk(examined: Examined) -> Iterator[Finding]:
    """Free room against what the run will write: checkpoints at their most, and the model."""
    told = {
        node: facts["output_dir"]["free"] for node, facts in examined.told("folders").items() if "output_dir" in facts
    }
    parameters = max((facts["model"].get("parameters", 0) for facts in examined.told("inputs").values()), default=0)
    free = {node: value for node, value in told.items() if value is not None}
    if not parameters or not free:
        return
    count, least = most_checkpoints(examined), min(free, key=lambda node: free[node])
    needed = parameters * (CHECKPOINT_BYTES * count + MODEL_BYTES)
    value = (
        f"{_size(free[least])} free for output_dir on {least}, {_size(needed)} needed: {count} checkpoint(s) of "
        f"{_size(CHECKPOINT_BYTES * parameters)} at most, and the model"
    )
    if free[least] < needed:
        yield error("disk", value, "make room, name another output_dir, or keep fewer: train.save_keep.")
    else:
        yield ok("disk", value)


def most_checkpoints(examined: Examined) -> int:
    """Checkpoints that lie there at once: those that are kept, the best one, and the one that is being written."""
    train = examined.run.train
    if train.save_every == "never":
        return 0
    return train.save_keep + (0 if train.eval_every == "never" else 1) + 1


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def inputs(examined: Examined) -> Iterator[Finding]:
    """Model and data are there without a network, and the same model everywhere."""
    told = examined.told("inputs")
    for part, key in (("model", "model.name"), ("data", "data.source")):
        found = {node: facts[part] for node, facts in told.items()}
        missing = {node: facts["error"] for node, facts in found.items() if facts["error"]}
        if missing:
            yield _missing(part, key, missing, {node: bool(told[node]["hub"]) for node in missing}, examined)
        elif found:
            yield ok(part, _there(examined, part, found))
    parameters = {node: facts["model"].get("parameters") for node, facts in told.items() if not facts["model"]["error"]}
    if len(set(parameters.values())) > 1:
        value = f"the nodes' copies differ in their parameters: {by_value(parameters)}"
        yield error("model", value, "let all nodes see one copy: name a shared folder in model.name.")


def _missing(part: str, key: str, missing: Mapping[str, str], hub: Mapping[str, bool], examined: Examined) -> Finding:
    by_hub = part == "model" or str(examined.run.data.source).startswith("hub")
    bundle = "`ftlaunch bundle` on a machine with a network makes a folder that has all"
    if by_hub and all(hub.values()):
        value = f"not here yet: {by_value(missing)}"
        return warning(part, value, f"it would be downloaded at the start, for the Hub answers; or {bundle}.")
    return error(part, by_value(missing), f"correct {key}, or {bundle}.")


def _there(examined: Examined, part: str, found: Mapping[str, Any]) -> str:
    run = examined.run
    if run.bundle is not None:
        return f"in the bundle {run.bundle}"
    if part == "data":
        return f"{run.data.source!r} can be read; {_store(examined)}"
    millions = max(facts["parameters"] for facts in found.values()) / 1e6
    return f"{run.model.name!r} is there, {millions:.1f} million parameters"


def _store(examined: Examined) -> str:
    stores = examined.told("store")
    if not stores:
        return "whether its store is made was not found out in time"
    made = [node for node, store in stores.items() if store]
    if len(made) == len(stores):
        return "its store is made"
    return "its store is not made yet, the start does that" + (f" but on {names(made)}" if made else "")


def locks(examined: Examined) -> Iterator[Finding]:
    """Locks in torch's compile cache whose holder is dead: whoever needs the op waits for ever."""
    told = examined.told("locks")
    found: dict[tuple[object, ...], dict[str, Any]] = {}
    for node, each in told.items():
        for lock in each:
            entry = found.setdefault((lock["path"], *lock["file"]), {**lock, "nodes": [], "held": None})
            entry["nodes"].append(node)
            entry["held"] = entry["held"] or (lock["holder"] and f"process {lock['holder']} on {node}")
    for lock in found.values():
        yield _lock(examined, lock)
    if told and not found:
        yield ok("locks", "none in torch's compile cache")


def _lock(examined: Examined, lock: Mapping[str, Any]) -> Finding:
    where = f"{lock['path']} on {names(lock['nodes'])}"
    if lock["held"]:
        return warning(
            "locks", f"{where}: {lock['held']} is compiling {lock['op']!r}", "ranks that need it wait for it."
        )
    needed = examined.run.engine.offload != "none" and examined.on_gpus
    value = f"{where}: left by a dead process; whoever needs {lock['op']!r} waits for ever"
    advice = f"unless a machine that was not asked compiles right now: rm '{lock['path']}'"
    return (error if needed else warning)("locks", value, advice)
