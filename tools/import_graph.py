"""Builds the graph of modules and their imports, and finds cycles in it."""

import ast
from collections.abc import Container, Iterable, Mapping

from tools.imports import Import, imports_in

# Importing module -> imported module -> line of the first such import.
Graph = Mapping[str, Mapping[str, int]]


def import_graph(trees: Mapping[str, ast.Module]) -> dict[str, dict[str, int]]:
    """Return the imports between the given modules, also those inside functions and under TYPE_CHECKING.

    An import of a module is no import of the packages around it, although Python runs their `__init__.py` too.
    """
    return {module: imports_between(module, imports_in(tree), trees) for module, tree in trees.items()}


def imports_between(module: str, imports: Iterable[Import], modules: Container[str]) -> dict[str, int]:
    """Return the other modules that one module imports, with the line of the first import of each."""
    lines: dict[str, int] = {}
    for found in imports:
        target = imported_module(found, modules)
        if target in modules and target != module:
            lines[target] = min(found.line, lines.get(target, found.line))
    return lines


def imported_module(found: Import, modules: Container[str]) -> str:
    """Return the module that is imported: for `from a import b`, `a.b` if that is a module, otherwise `a`."""
    longer = f"{found.module}.{found.name}"
    return longer if longer in modules else found.module


def cycles(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components of two modules or more: groups in which each imports all others,
    directly or through others. Both the groups and their members are sorted."""
    reach = {module: reachable(graph, module) for module in graph}
    groups = {frozenset(other for other in reach[module] if module in reach[other]) for module in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def reachable(graph: Graph, start: str) -> set[str]:
    """Return the modules that `start` imports, directly or through others."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()].keys() - seen
        seen |= new
        waiting.extend(new)
    return seen


def importers(graph: Graph) -> dict[str, list[str]]:
    """Map each imported module to the modules that import it."""
    found: dict[str, list[str]] = {}
    for module, targets in graph.items():
        for target in targets:
            found.setdefault(target, []).append(module)
    return found
