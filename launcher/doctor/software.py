"""Checks that each node answers, and its software: one Python, suitable packages and the same sources."""

from collections.abc import Iterator, Mapping

from packaging.specifiers import SpecifierSet

from launcher.doctor.facts import ClusterFacts, ProbeOutput
from launcher.doctor.findings import Finding, by_value, error, grouped, names, ok, warning


def reachability(cluster: ClusterFacts) -> Iterator[Finding]:
    """Find nodes whose probe could not be started, or did not reach its end."""
    request = cluster.request
    answering = [node for node in request.nodes if node not in cluster.unreachable]
    for node in cluster.unreachable:
        output = cluster.outputs[request.hosts.index(node)]
        yield error("node", f"{node} does not answer: {_last_error(output)}", _how_to_reach(node, request.backend))
    for number, output in cluster.outputs.items():
        if output.groups and "end" not in output.groups:
            last = f"reported its facts up to {list(output.groups)[-1]!r}, then: {_last_error(output)}"
            yield warning("node", f"{request.hosts[number]} {last}", "the facts after that are not checked here.")
    if answering:
        found = f"{len(answering)} of {len(request.nodes)} answer ({request.backend}): {names(answering)}"
        yield ok("node", found)


def _last_error(output: ProbeOutput) -> str:
    lines = [line.strip() for line in output.errors.splitlines()]
    lines = [line for line in lines if line and not line.startswith("frame #")]  # torch's own stack in C++
    how = "it took too long and was killed" if output.status is None else f"exit status {output.status}"
    return f"{lines[-1]} ({how})" if lines else how


def _how_to_reach(node: str, backend: str) -> str:
    if backend == "hostfile":
        return f"`ssh {node} true` must work without a password, and this folder and Python must exist there."
    if backend == "slurm":
        return f"`srun -w {node} true` must work inside the allocation, and this folder and Python must exist there."
    return "run `python -m ftsys --help` here and read its message."


def python(cluster: ClusterFacts) -> Iterator[Finding]:
    """Compare the Python versions of the nodes; a different minor version is an error."""
    versions = {node: facts["python"] for node, facts in cluster.by_node("machine").items()}
    if not versions:
        return
    minors = {version.rpartition(".")[0] for version in versions.values()}
    if len(minors) > 1:
        yield error("python", by_value(versions), "start from the same environment on every node.")
    elif len(set(versions.values())) > 1:
        yield warning("python", by_value(versions), "start from the same environment on every node.")
    else:
        yield ok("python", by_value(versions))


def packages(cluster: ClusterFacts) -> Iterator[Finding]:
    """Check each package that ftsys needs: installed, within its range, and of one version on all nodes."""
    known = {node: facts["packages"] for node, facts in cluster.by_node("machine").items()}
    if not known:
        return
    needed = cluster.request.requirements
    bad = [finding for name in needed for finding in _package(cluster, name, known)]
    yield from bad
    if not bad:
        yield ok("packages", f"{len(needed)} packages as ftsys needs them, equal on {len(known)} node(s)")
    yield from _untested(cluster, known)


def _package(cluster: ClusterFacts, name: str, known: Mapping[str, Mapping[str, str | None]]) -> Iterator[Finding]:
    wanted = SpecifierSet(cluster.request.requirements[name])
    versions = {node: found[name] for node, found in known.items()}
    right = {node: version for node, version in versions.items() if version is not None and _within(version, wanted)}
    install = f"pip install '{name}{_choice(cluster, name, right)}'"
    if len(right) < len(versions):
        wrong = {node: version or "not installed" for node, version in versions.items() if node not in right}
        yield error(
            name, f"{by_value(wrong)}, ftsys needs {wanted or 'any version'}", f"{install} on {names(list(wrong))}."
        )
    elif len(set(versions.values())) > 1:
        others = list(grouped(versions).values())[1:]
        where = names([node for nodes in others for node in nodes])
        yield error(
            name, f"differs: {by_value(versions)}", f"one version on all nodes, for instance {install} on {where}."
        )


def _within(version: str, wanted: SpecifierSet) -> bool:
    return wanted.contains(version, prereleases=True)


def _choice(cluster: ClusterFacts, name: str, right: Mapping[str, str]) -> str:
    """Return the version to install: that of most nodes with a suitable one, else the tested one, else the range."""
    version = next(iter(grouped(right)), None) or cluster.request.tested.get(name)
    return f"=={version.partition('+')[0]}" if version else cluster.request.requirements[name]


def _untested(cluster: ClusterFacts, known: Mapping[str, Mapping[str, str | None]]) -> Iterator[Finding]:
    """Find versions that should work, but are not those that the tests were run with."""
    first = next(iter(known.values()))
    pairs = {name: (first[name], cluster.request.tested.get(name)) for name in cluster.request.requirements}
    other = [f"{name} {found} (tested: {tested})" for name, (found, tested) in pairs.items() if _differs(found, tested)]
    if other:
        yield warning(
            "versions",
            f"not those that were tested: {', '.join(other)}",
            "if something fails, install the tested ones: pip install -c constraints.txt.",
        )


def _differs(found: str | None, tested: str | None) -> bool:
    return found is not None and tested is not None and found.partition("+")[0] != tested


def sources(cluster: ClusterFacts) -> Iterator[Finding]:
    """Check that ftsys itself is the same on all nodes."""
    digests = {node: facts["sources"] for node, facts in cluster.by_node("machine").items()}
    if len(set(digests.values())) > 1:
        yield error("ftsys", f"its sources differ: {by_value(digests)}", "install the same commit on every node.")
