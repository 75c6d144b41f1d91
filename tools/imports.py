"""Reads the project's import statements from the source text, without running anything."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("ftsys", "launcher")


@dataclass(frozen=True)
class Import:
    """One imported thing: `module` as written, `name` taken from it or "" for the module itself."""

    line: int
    module: str
    name: str
    lazy: bool


def sources(root: Path) -> dict[str, Path]:
    """Map the module names of both packages to their files; a package's name stands for its `__init__.py`."""
    files = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    parts = {path: path.relative_to(root).with_suffix("").parts for path in files}
    return {".".join(part for part in names if part != "__init__"): path for path, names in parts.items()}


def imports_of(source: str) -> Iterator[Import]:
    """Yield every import in the text."""
    yield from imports_in(ast.parse(source))


def imports_in(tree: ast.Module) -> Iterator[Import]:
    """Yield every import in the syntax tree; `lazy` marks those that importing the module does not run."""
    for node, lazy in statements(tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, "", lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (Import(node.lineno, module, alias.name, lazy) for alias in node.names)


def statements(node: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yield each statement inside the node, with True if it runs later than the module's import or never.

    Expressions are skipped: they hold no statement, and most of a tree's nodes are theirs.
    """
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield child, lazy
            yield from statements(child, lazy or runs_later(child))


def runs_later(node: ast.AST) -> bool:
    """Return True if the node's body runs only when it is called, or only under a type checker."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
