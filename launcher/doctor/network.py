"""Checks the network between the nodes: names, the port, the rendezvous, the all-reduce, and the clocks."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from launcher.doctor.facts import ClusterFacts
from launcher.doctor.findings import Finding, by_value, error, names, ok, warning

SLOW_LOOK_UP = 1.0
"""Seconds; a healthy name service answers in milliseconds."""

SLOW_CONNECTION = 5.0
SLOW_STEP = 1.0
"""Seconds that summing the gradients of a step may take without a warning."""

SLIGHT_SKEW, FATAL_SKEW = 1.0, 300.0
"""munge, and so SLURM, refuses credentials whose time is 300 s away; so does Kerberos."""

_IN_HOSTS = "write the nodes' names and addresses into /etc/hosts of every node, or have the name service repaired"


def look_ups(cluster: ClusterFacts) -> Iterator[Finding]:
    """Find names without an address, and look-ups that are slow or get no answer."""
    known = cluster.by_node("names")
    if not known:
        return
    several = cluster.request.nodes if len(cluster.request.nodes) > 1 else ()
    bad = [*_forward(known, several), *_reverse(known)]
    yield from bad
    if not bad:
        count = sum(len(facts["forward"]) + len(facts["reverse"]) for facts in known.values())
        slowest = max(seconds for facts in known.values() for seconds in _seconds(facts))
        yield ok("names", f"{count} look-ups, forward and reverse, the slowest in {slowest:.2f} s")


def _seconds(facts: Mapping[str, Any]) -> Iterator[float]:
    for kind in ("forward", "reverse"):
        yield from (answer.get("seconds", 0.0) for answer in facts[kind].values())


def _forward(known: Mapping[str, Any], needed: Collection[str]) -> Iterator[Finding]:
    """Find names without an address, and slow ones. `needed`: names by which nodes reach each other."""
    failed: dict[tuple[str, str], list[str]] = {}
    late: dict[str, list[str]] = {}
    for node, facts in known.items():
        for name, answer in facts["forward"].items():
            if "answer" not in answer:
                failed.setdefault((name, answer["error"]), []).append(node)
            elif answer["seconds"] > SLOW_LOOK_UP:
                late.setdefault(name, []).append(f"{node} ({answer['seconds']:.1f} s)")
    for (name, problem), nodes in failed.items():
        finding = error if name in needed else warning
        yield finding("names", f"{name!r} cannot be looked up on {names(nodes)}: {problem}", f"{_IN_HOSTS}.")
    for name, nodes in late.items():
        yield warning("names", f"{name!r} is looked up slowly on {names(nodes)}", f"{_IN_HOSTS}.")


def _reverse(known: Mapping[str, Any]) -> Iterator[Finding]:
    late: dict[str, list[str]] = {}
    for node, facts in known.items():
        for address, answer in facts["reverse"].items():
            if _is_late(answer):
                late.setdefault(address, []).append(node)
    for address, nodes in late.items():
        value = f"{address} gets no name in time on {names(nodes)}: each rendezvous connection may wait 10 s"
        yield warning("names", value, f"{_IN_HOSTS}.")


def _is_late(answer: Mapping[str, Any]) -> bool:
    return bool(answer.get("timed_out")) or answer.get("seconds", 0.0) > SLOW_LOOK_UP


def rendezvous(cluster: ClusterFacts) -> Iterator[Finding]:
    """Check that all probes connect to the run's port, and how long that takes."""
    known, request = cluster.by_probe("rendezvous"), cluster.request
    failed = {number: facts for number, facts in known.items() if facts["error"]}
    if not known:
        return
    if not failed:
        found = f"{len(known)} process(es) connected to {request.nodes[0]}, port {request.port}"
        # Probe 0 connects to itself, so it waits only for look-ups; the others may also wait for its start.
        slowest = known[0]["connected"] if 0 in known else 0.0
        if slowest > SLOW_CONNECTION:
            value = f"{found}, but a connection takes {slowest:.1f} s"
            yield warning("rendezvous", value, f"see the findings about names; {_IN_HOSTS}.")
        else:
            yield ok("rendezvous", found)
        return
    yield _failed_rendezvous(cluster, failed)


def _failed_rendezvous(cluster: ClusterFacts, failed: Mapping[int, Any]) -> Finding:
    request = cluster.request
    first = failed.get(0)
    if first and _port_is_taken(first["error"]):
        value = f"{request.port} is in use on {request.nodes[0]}"
        if request.port_is_named:
            return error(
                "port", value, "name another, or leave --port out; `ss -ltnp` shows the process that holds it."
            )
        return warning(
            "port", f"{value}, so the rendezvous was not tested", "the run takes the next port; start the doctor again."
        )
    unreachable = cluster.unreachable
    absent = {request.hosts[number] for facts in failed.values() for number in facts["absent"]} - set(unreachable)
    if not absent and unreachable:
        value = f"{names(unreachable)} did not take part"
        return error("rendezvous", value, "repair the nodes that do not answer.")
    who = names(sorted(absent or {request.hosts[number] for number in failed}))
    return error(
        "rendezvous",
        f"{who} did not reach {request.nodes[0]}, port {request.port}: {next(iter(failed.values()))['error']}",
        f"open TCP port {request.port} and all above 1023 between the nodes, and check the routes between them.",
    )


def _port_is_taken(text: str) -> bool:
    return "EADDRINUSE" in text or "address already in use" in text.lower()


def all_reduce(cluster: ClusterFacts) -> Iterator[Finding]:
    """Check that a sum over all nodes is right, and its bandwidth."""
    known, request = cluster.by_probe("all_reduce"), cluster.request
    failed = {request.hosts[number]: facts["error"] for number, facts in known.items() if facts["error"]}
    if failed:
        yield error("all-reduce", by_value(failed), _why_no_sum(cluster))
    elif known and len(request.hosts) > 1:
        backend, size = next((facts["backend"], facts["megabytes"]) for facts in known.values())
        slowest = min(facts["mb_per_s"] for facts in known.values())
        yield from _bandwidth(cluster, backend, size, slowest)


def _bandwidth(cluster: ClusterFacts, backend: str, size: int, slowest: float) -> Iterator[Finding]:
    value = f"{backend}, {size} MB: {slowest:,.0f} MB/s"
    trained = cluster.parameters - cluster.frozen
    several = len(cluster.request.nodes) > 1
    seconds = 4e-6 * trained * 2 / max(slowest, 1e-9)
    if several and seconds > SLOW_STEP:
        value += f"; the gradients of {trained / 1e6:.0f} million parameters take {seconds:.1f} s a step"
        yield warning(
            "all-reduce",
            value,
            "name the fast interface (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME), or train on one node.",
        )
    else:
        yield ok("all-reduce", value)


def _why_no_sum(cluster: ClusterFacts) -> str:
    """Return advice for a failed sum: gloo tells the other nodes the address of a node's own name."""
    loopback = [
        node
        for node, facts in cluster.by_node("names").items()
        if any(address.startswith("127.") for address in facts["forward"].get(facts["own"], {}).get("answer", []))
    ]
    if loopback and len(cluster.request.nodes) > 1:
        return (
            f"the host name of {names(loopback)} has a loopback address: set GLOO_SOCKET_IFNAME, or correct /etc/hosts."
        )
    debug = "set NCCL_DEBUG=INFO or TORCH_DISTRIBUTED_DEBUG=DETAIL and run the doctor again"
    return f"{debug}; check firewalls and the interface's name."


def clocks(cluster: ClusterFacts) -> Iterator[Finding]:
    """Compare the nodes' clocks, which were read at one moment: right after the rendezvous."""
    known = cluster.by_node("clock")
    if len(known) < 2:
        return
    middle = sorted(known.values())[len(known) // 2]
    skew = max(known.values()) - min(known.values())
    value = f"up to {skew:.1f} s apart"
    off = {node: f"{time - middle:+.1f} s" for node, time in known.items() if abs(time - middle) > SLIGHT_SKEW / 2}
    if skew <= SLIGHT_SKEW:
        yield ok("clocks", f"within {max(skew, 0.1):.1f} s of each other")
    else:
        finding = error if skew > FATAL_SKEW else warning
        yield finding(
            "clocks", f"{value}: {by_value(off)}", "let NTP set the clocks (chrony, timedatectl set-ntp true)."
        )
