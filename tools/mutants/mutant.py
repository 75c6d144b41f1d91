"""Lists the mutants of a module: one change each, with its place in the text.

Left alone are annotations, decorators, assertions, f-strings, imports and type aliases: they speak to a reader or to a
type checker, and tests compare messages as a whole.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tools.mutants.changes import changes

SILENT_FIELDS = {"annotation", "returns", "decorator_list", "bases"}


@dataclass(frozen=True)
class Mutant:
    """A change: the bytes of the file `path` from `start` to `end` become `after`."""

    path: str
    function: str
    """Qualified name of the function or class around it; "module" at the top."""
    line: int
    kind: str
    before: str
    after: str
    start: int
    end: int
    number: int = 1
    """Counts equal changes within one function, from 1."""

    @property
    def name(self) -> str:
        """A name that stays the same while other lines of the module change."""
        number = f" ({self.number})" if self.number > 1 else ""
        _, _, argument = self.kind.partition(" ")
        change = f"without {argument}=" if argument else short(self.after)
        return f"{self.path} {self.function}: {short(self.before)} -> {change}{number}"

    def applied(self, source: bytes) -> bytes:
        """Return the changed text of the module."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """Return all mutants of a module in the order of its lines; `path` is only written into them."""
    found, seen = [], Counter[str]()
    for mutant in _Finder(path, source).inside(ast.parse(source), ""):
        seen[mutant.name] += 1
        found.append(replace(mutant, number=seen[mutant.name]))
    return found


def sample(mutants: Sequence[Mutant], most: int, seed: int) -> list[Mutant]:
    """Choose at most `most` mutants. The choice follows from seed and names: an edit elsewhere changes little of it."""

    def rank(mutant: Mutant) -> str:
        return hashlib.sha256(f"{seed} {mutant.name}".encode()).hexdigest()

    return sorted(sorted(mutants, key=rank)[:most], key=lambda mutant: (mutant.path, mutant.line, mutant.start))


class _Finder:
    """Walks a module's tree and yields the mutants of each node that runs."""

    def __init__(self, path: str, source: bytes) -> None:
        self.path, self.source = path, source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def inside(self, node: ast.AST, function: str) -> Iterator[Mutant]:
        """Yield the mutants of a node and of all below it; `function` is the qualified name around it."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".lstrip(".")
        if _is_for_types(node):
            return
        for kind, before, after in changes(node):
            yield self._mutant(function or "module", kind, before, after)
        for child in running(node):
            yield from self.inside(child, function)

    def _mutant(self, function: str, kind: str, before: ast.AST, after: ast.AST) -> Mutant:
        assert isinstance(before, ast.stmt | ast.expr)
        start = self.starts[before.lineno - 1] + before.col_offset
        end = self.starts[(before.end_lineno or before.lineno) - 1] + (before.end_col_offset or 0)
        text = ast.unparse(ast.fix_missing_locations(after))
        if isinstance(after, ast.expr) and not isinstance(after, ast.Name | ast.Constant):
            text = f"({text})"
        former = one_line(self.source[start:end].decode())
        return Mutant(self.path, function, before.lineno, kind, former, text, start, end)


def one_line(code: str) -> str:
    """Return code of several lines as one."""
    return " ".join(code.split())


def short(code: str, most: int = 100) -> str:
    """Return the beginning of a long line of code."""
    return code if len(code) <= most else f"{code[:most]}..."


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the children of a node that a program runs."""
    if isinstance(node, ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        return
    for name, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        if name not in SILENT_FIELDS:
            yield from (child for child in children if isinstance(child, ast.AST))


def _is_for_types(node: ast.AST) -> bool:
    """Return True for `if TYPE_CHECKING`, `Kind = Literal["a", "b"]`, `Batch = Packed | Padded` and type variables."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if not (isinstance(node, ast.Assign) and node.col_offset == 0 and isinstance(node.targets[0], ast.Name)):
        return False
    value, name = node.value, node.targets[0].id
    variable = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "TypeVar"
    return variable or (isinstance(value, ast.Subscript | ast.BinOp) and name[0].isupper() and not name.isupper())
