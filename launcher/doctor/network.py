"""Judges how the nodes reach each other: names, the port, the rendezvous, the all-reduce, their clocks."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from launcher.doctor.facts import Examined
from launcher.doctor.findings import Finding, by_value, error, names, ok, warning

SLOW_LOOK_UP = 1.0
"""Seconds; a name service that is well answers in milliseconds."""

SLOW_MEETING = 5.0
SLOW_STEP = 1.0
"""Seconds that summing the gradients of a step may take before it is worth a word."""

SKEW_SECONDS, SKEW_FATAL = 1.0, 300.0
"""munge, and so SLURM, refuses credentials that are 300 s away; Kerberos does too."""

_IN_HOSTS = "write the nodes' names and addresses into /etc/hosts of every node, or have the name service mended"


def look_ups(examined: Examined) -> Iterator[Finding]:
    """Names that have no address, and look-ups that come late or never."""
    told = examined.told("names")
    if not told:
        return
    several = examined.asked.nodes if len(examined.asked.nodes) > 1 else ()
    bad = [*_forward(told, several), *_reverse(told)]
    yield from bad
    if not bad:
        count = sum(len(facts["forward"]) + len(facts["reverse"]) for facts in told.values())
        slowest = max(seconds for facts in told.values() for seconds in _seconds(facts))
        yield ok("names", f"{count} look-ups, forward and reverse, the slowest in {slowest:.2f} s")


def _seconds(facts: Mapping[str, Any]) -> Iterator[float]:
    for kind in ("forward", "reverse"):
        yield from (answer.get("seconds", 0.0) for answer in facts[kind].values())


def _forward(told: Mapping[str, Any], needed: Collection[str]) -> Iterator[Finding]:
    """Names without an address, and late ones. `needed`: names by which nodes reach each other."""
    failed: dict[tuple[str, str], list[str]] = {}
    late: dict[str, list[str]] = {}
    for node, facts in told.items():
        for name, answer in facts["forward"].items():
            if "answer" not in answer:
                failed.setdefault((name, answer["error"]), []).append(node)
            elif answer["seconds"] > SLOW_LOOK_UP:
                late.setdefault(name, []).append(f"{node} ({answer['seconds']:.1f} s)")
    for (name, problem), nodes in failed.items():
        judge = error if name in needed else warning
        yield judge("names", f"{name!r} cannot be looked up on {names(nodes)}: {problem}", f"{_IN_HOSTS}.")
    for name, nodes in late.items():
        yield warning("names", f"{name!r} is looked up slowly on {names(nodes)}", f"{_IN_HOSTS}.")


def _reverse(told: Mapping[str, Any]) -> Iterator[Finding]:
    late: dict[str, list[str]] = {}
    for node, facts in told.items():
        for address, answer in facts["reverse"].items():
            if _is_late(answer):
                late.setdefault(address, []).append(node)
    for address, nodes in late.items():
        value = f"{address} gets no name in time on {names(nodes)}: each connection of a rendezvous may wait 10 s"
        yield warning("names", value, f"{_IN_HOSTS}.")


def _is_late(answer: Mapping[str, Any]) -> bool:
    return bool(answer.get("timed_out")) or answer.get("seconds", 0.0) > SLOW_LOOK_UP


def rendezvous(examined: Examined) -> Iterator[Finding]:
    """Whether all meet at the run's port, and how long that takes."""
    told, asked = examined.told_by_seats("rendezvous"), examined.asked
    failed = {seat: facts for seat, facts in told.items() if facts["error"]}
    if not told:
        return
    if not failed:
        found = f"{len(told)} process(es) met at {asked.nodes[0]}, port {asked.port}"
        # Seat 0 connects to itself, so it waits for look-ups alone; the others may wait for its start too.
        slowest = told[0]["connected"] if 0 in told else 0.0
        if slowest > SLOW_MEETING:
            value = f"{found}, but a connection takes {slowest:.1f} s"
            yield warning("rendezvous", value, f"see the look-ups; {_IN_HOSTS}.")
        else:
            yield ok("rendezvous", found)
        return
    yield _failed_meeting(examined, failed)


def _failed_meeting(examined: Examined, failed: Mapping[int, Any]) -> Finding:
    asked = examined.asked
    first = failed.get(0)
    if first and _port_is_taken(first["error"]):
        value = f"{asked.port} is in use on {asked.nodes[0]}"
        if asked.port_is_named:
            return error("port", value, "name another, or leave --port out; `ss -ltnp` says whose it is.")
        return warning("port", f"{value}, so the meeting could not be tried", "the run takes the next one; look again.")
    absent = {asked.hosts[seat] for facts in failed.values() for seat in facts["absent"]} - set(examined.silent)
    if not absent and examined.silent:
        return error("rendezvous", f"nobody waits for {names(examined.silent)}", "mend the nodes that do not answer.")
    who = names(sorted(absent or {asked.hosts[seat] for seat in failed}))
    return error(
        "rendezvous",
        f"{who} did not reach {asked.nodes[0]}, port {asked.port}: {next(iter(failed.values()))['error']}",
        f"open TCP port {asked.port} and those above 1023 between the nodes, and see that they route to each other.",
    )


def _port_is_taken(text: str) -> bool:
    return "EADDRINUSE" in text or "address already in use" in text.lower()


def all_reduce(examined: Examined) -> Iterator[Finding]:
    """Whether a sum over all nodes comes out right, and with which bandwidth."""
    told, asked = examined.told_by_seats("all_reduce"), examined.asked
    failed = {asked.hosts[seat]: facts["error"] for seat, facts in told.items() if facts["error"]}
    if failed:
        yield error("all-reduce", by_value(failed), _why_no_sum(examined))
    elif told and len(asked.hosts) > 1:
        backend, size = next((facts["backend"], facts["megabytes"]) for facts in told.values())
        slowest = min(facts["mb_per_s"] for facts in told.values())
        yield from _bandwidth(examined, backend, size, slowest)


def _bandwidth(examined: Examined, backend: str, size: int, slowest: float) -> Iterator[Finding]:
    value = f"{backend}, {size} MB: {slowest:,.0f} MB/s"
    parameters = max((facts["model"].get("parameters", 0) for facts in examined.told("inputs").values()), default=0)
    several = len(examined.asked.nodes) > 1
    seconds = 4e-6 * parameters * 2 / max(slowest, 1e-9)
    if several and seconds > SLOW_STEP:
        value += f"; the gradients of {parameters / 1e6:.0f} million parameters take {seconds:.1f} s a step"
        yield warning(
            "all-reduce",
            value,
            "name the fast interface (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME), or train on one node.",
        )
    else:
        yield ok("all-reduce", value)


def _why_no_sum(examined: Examined) -> str:
    """gloo tells the others the address that a node's own name has."""
    loopback = [
        node
        for node, facts in examined.told("names").items()
        if any(address.startswith("127.") for address in facts["forward"].get(facts["own"], {}).get("answer", []))
    ]
    if loopback and len(examined.asked.nodes) > 1:
        return f"the own name of {names(loopback)} means the machine itself: set GLOO_SOCKET_IFNAME, mend /etc/hosts."
    return (
        "set NCCL_DEBUG=INFO or TORCH_DISTRIBUTED_DEBUG=DETAIL and look again; see firewalls and the interface's name."
    )


def clocks(examined: Examined) -> Iterator[Finding]:
    """How far the nodes' clocks are apart, read at one moment: when all had met."""
    told = examined.told("clock")
    if len(told) < 2:
        return
    middle = sorted(told.values())[len(told) // 2]
    skew = max(told.values()) - min(told.values())
    value = f"up to {skew:.1f} s apart"
    off = {node: f"{time - middle:+.1f} s" for node, time in told.items() if abs(time - middle) > SKEW_SECONDS / 2}
    if skew <= SKEW_SECONDS:
        yield ok("clocks", f"within {max(skew, 0.1):.1f} s of each other")
    else:
        judge = error if skew > SKEW_FATAL else warning
        yield judge("clocks", f"{value}: {by_value(off)}", "let NTP set them (chrony, timedatectl set-ntp true).")
