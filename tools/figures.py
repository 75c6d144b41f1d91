"""Computes the figures of the layout from the sources of `ftsys` and `launcher`."""

import ast
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.import_graph import Graph, cycles, import_graph, importers
from tools.import_order import mistakes
from tools.imports import imports_in, sources, statements

QUESTION_WORDS = ("what", "which", "whether", "where", "when", "who", "whose", "why", "how")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file: its path from the root with slashes, its number of lines and its syntax tree."""

    path: str
    lines: int
    tree: ast.Module


@dataclass(frozen=True)
class Sizes:
    """The median, the 90th percentile (nearest rank) and the largest of some line counts, and where the largest is."""

    median: float
    ninetieth: int
    largest: int
    place: str


@dataclass(frozen=True)
class Figures:
    """The figures of both packages. Each list has one line of text, most often `file:line text`, for each offender."""

    files: int
    file_lines: Sizes
    function_lines: Sizes
    folders: dict[str, int]
    against_the_order: list[str]
    cycles: list[list[str]]
    cycle_imports: list[str]
    imported_once: list[str]
    module_questions: list[str]
    inner_questions: list[str]


def measure(root: Path) -> Figures:
    """Read both packages below `root` and compute their figures."""
    modules = {module: read(path, root) for module, path in sources(root).items()}
    files = list(modules.values())
    graph = import_graph({module: source.tree for module, source in modules.items()})
    return Figures(
        files=len(files),
        file_lines=sizes({source.path: source.lines for source in files}),
        function_lines=sizes({place: lines for source in files for place, lines in functions(source)}),
        folders=dict(Counter(source.path.rpartition("/")[0] for source in files).most_common()),
        against_the_order=[text for module, source in modules.items() for text in against_the_order(module, source)],
        cycles=cycles(graph),
        cycle_imports=cycle_imports(graph, modules),
        imported_once=imported_once(graph, modules),
        module_questions=[text for source in files for text in questions(source, [source.tree])],
        inner_questions=[text for source in files for text in questions(source, definitions(source.tree))],
    )


def read(path: Path, root: Path) -> Source:
    """Parse one file."""
    text = path.read_text(encoding="utf-8")
    return Source(path.relative_to(root).as_posix(), len(text.splitlines()), ast.parse(text))


def sizes(lines: Mapping[str, int]) -> Sizes:
    """Summarize line counts by place; all zero if there are none."""
    if not lines:
        return Sizes(0, 0, 0, "")
    ordered = sorted(lines.values())
    place = max(lines, key=lines.__getitem__)
    return Sizes(statistics.median(ordered), ordered[math.ceil(0.9 * len(ordered)) - 1], lines[place], place)


def definitions(tree: ast.Module) -> Iterator[ast.ClassDef | Function]:
    """Yield all classes, functions and methods of a module, nested ones too."""
    yield from (node for node, _ in statements(tree) if isinstance(node, ast.ClassDef | Function))


def functions(source: Source) -> Iterator[tuple[str, int]]:
    """Yield the place and length of each function, from `def` to its last line, without decorators."""
    for node in definitions(source.tree):
        if isinstance(node, Function):
            yield f"{source.path}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def against_the_order(module: str, source: Source) -> list[str]:
    """Return the imports of one file that the import order forbids; several names from one module count once."""
    found = mistakes(module, imports_in(source.tree))
    return [f"{source.path}:{line} {reason}" for line, reason in dict.fromkeys(found)]


def cycle_imports(graph: Graph, modules: Mapping[str, Source]) -> list[str]:
    """Return the imports by which the members of each cycle import each other."""
    return [
        f"{modules[module].path}:{graph[module][target]} imports {target}"
        for group in cycles(graph)
        for module in group
        for target in sorted(graph[module].keys() & set(group))
    ]


def imported_once(graph: Graph, modules: Mapping[str, Source]) -> list[str]:
    """Return the modules that exactly one other module imports, with the place of that import."""
    alone = {target: by[0] for target, by in importers(graph).items() if len(by) == 1}
    return [
        f"{modules[importer].path}:{graph[importer][target]} imports {target}"
        for target, importer in sorted(alone.items())
    ]


def questions(source: Source, nodes: Iterable[ast.Module | ast.ClassDef | Function]) -> Iterator[str]:
    """Yield the docstrings of these nodes whose first word is a question word, each with its line."""
    for node in nodes:
        text = ast.get_docstring(node) or ""
        if first_word(text) in QUESTION_WORDS:
            yield f"{source.path}:{node.body[0].lineno} {text.splitlines()[0]}"


def first_word(text: str) -> str:
    """Return the first word in lower case, without punctuation and without "'s"."""
    word = text.partition(" ")[0].partition("\n")[0].lower().replace("\u2019", "'").partition("'")[0]
    return word.strip('"`*(),.:;?!-')
