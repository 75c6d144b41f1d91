"""Judges what is installed: does each node answer, with one Python, fitting packages and the same sources?"""

from collections.abc import Iterator, Mapping

from packaging.specifiers import SpecifierSet

from launcher.doctor.facts import Answer, Examined
from launcher.doctor.findings import Finding, by_value, error, grouped, names, ok, warning


def answers(examined: Examined) -> Iterator[Finding]:
    """Nodes whose probe could not be started, or did not come to its end."""
    asked = examined.asked
    told = [node for node in asked.nodes if node not in examined.silent]
    for node in examined.silent:
        answer = examined.answers[asked.hosts.index(node)]
        yield error("node", f"{node} does not answer: {_last_words(answer)}", _how_to_reach(node, asked.backend))
    for seat, answer in examined.answers.items():
        if answer.groups and "end" not in answer.groups:
            last = f"came as far as {list(answer.groups)[-1]!r}, then: {_last_words(answer)}"
            yield warning("node", f"{asked.hosts[seat]} {last}", "what it could not tell any more is not judged here.")
    if told:
        yield ok("node", f"{len(told)} of {len(asked.nodes)} answer ({asked.backend}): {names(told)}")


def _last_words(answer: Answer) -> str:
    lines = [line.strip() for line in answer.errors.splitlines()]
    lines = [line for line in lines if line and not line.startswith("frame #")]  # torch's own stack in C++
    how = "it took too long and was ended" if answer.status is None else f"exit status {answer.status}"
    return f"{lines[-1]} ({how})" if lines else how


def _how_to_reach(node: str, backend: str) -> str:
    if backend == "hostfile":
        return f"`ssh {node} true` must work without a password, and this folder and Python must be there too."
    if backend == "slurm":
        return f"`srun -w {node} true` must work inside the allocation, and this folder and Python be there too."
    return "start `python -m ftsys --help` here and see what it says."


def python(examined: Examined) -> Iterator[Finding]:
    """One Python on all nodes; the same minor version at least."""
    versions = {node: facts["python"] for node, facts in examined.told("machine").items()}
    if not versions:
        return
    minors = {version.rpartition(".")[0] for version in versions.values()}
    if len(minors) > 1:
        yield error("python", by_value(versions), "start from the same environment on every node.")
    elif len(set(versions.values())) > 1:
        yield warning("python", by_value(versions), "start from the same environment on every node.")
    else:
        yield ok("python", by_value(versions))


def packages(examined: Examined) -> Iterator[Finding]:
    """Each package that ftsys needs: there, within its range, and of one version on all nodes."""
    told = {node: facts["packages"] for node, facts in examined.told("machine").items()}
    if not told:
        return
    bad = [finding for name in examined.asked.requirements for finding in _package(examined, name, told)]
    yield from bad
    if not bad:
        yield ok("packages", f"{len(examined.asked.requirements)} as ftsys needs them, equal on {len(told)} node(s)")
    yield from _untested(examined, told)


def _package(examined: Examined, name: str, told: Mapping[str, Mapping[str, str | None]]) -> Iterator[Finding]:
    wanted = SpecifierSet(examined.asked.requirements[name])
    versions = {node: found[name] for node, found in told.items()}
    right = {node: version for node, version in versions.items() if version is not None and _within(version, wanted)}
    install = f"pip install '{name}{_choice(examined, name, right)}'"
    if len(right) < len(versions):
        wrong = {node: version or "not installed" for node, version in versions.items() if node not in right}
        yield error(
            name, f"{by_value(wrong)}, ftsys needs {wanted or 'any version'}", f"{install} on {names(list(wrong))}."
        )
    elif len(set(versions.values())) > 1:
        others = list(grouped(versions).values())[1:]
        which = names([node for nodes in others for node in nodes])
        yield error(
            name, f"differs: {by_value(versions)}", f"one version on all nodes, for instance {install} on {which}."
        )


def _within(version: str, wanted: SpecifierSet) -> bool:
    return wanted.contains(version, prereleases=True)


def _choice(examined: Examined, name: str, right: Mapping[str, str]) -> str:
    """What to install: what most nodes with a fitting version have, else the tested version, else what will do."""
    version = next(iter(grouped(right)), None) or examined.asked.tested.get(name)
    return f"=={version.partition('+')[0]}" if version else examined.asked.requirements[name]


def _untested(examined: Examined, told: Mapping[str, Mapping[str, str | None]]) -> Iterator[Finding]:
    """Versions that will do, but are not those that the tests were run with."""
    first = next(iter(told.values()))
    pairs = {name: (first[name], examined.asked.tested.get(name)) for name in examined.asked.requirements}
    other = [f"{name} {found} (tested: {tested})" for name, (found, tested) in pairs.items() if _differs(found, tested)]
    if other:
        yield warning(
            "versions",
            f"not those that were tested: {', '.join(other)}",
            "pip install -c constraints.txt, if in doubt.",
        )


def _differs(found: str | None, tested: str | None) -> bool:
    return found is not None and tested is not None and found.partition("+")[0] != tested


def sources(examined: Examined) -> Iterator[Finding]:
    """ftsys itself is the same on all nodes."""
    digests = {node: facts["sources"] for node, facts in examined.told("machine").items()}
    if len(set(digests.values())) > 1:
        yield error("ftsys", f"its sources differ: {by_value(digests)}", "install the same commit on every node.")
