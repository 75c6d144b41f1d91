"""Prints the figures of the project's layout: sizes, folders, upward imports, cycles, docstrings.

`make house` runs it, and `make check` does so at its end, as information: it judges nothing and exits with 0.
`tests/unit/test_house.py` holds the limits. It reads the text of `ftsys/` and `launcher/` and imports neither.

How it counts:
- Lines of a file include blank lines and comments. A function's lines go from `def` to its end, without decorators.
- A folder's files are the Python files directly in it, `__init__.py` included.
- Imports inside functions and under `TYPE_CHECKING` count like all others, in cycles too.
- Docstrings count as questions if their first word is one of what, which, whether, where, when, who, whose, why, how.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from tools.figures import QUESTION_WORDS, Figures, measure

LARGEST_FOLDERS = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the report for the checkout that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tools.house", description=(__doc__ or "").partition("\n")[0])
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--root", type=Path, default=here, help="checkout to read (default: the one of this script)")
    parser.add_argument("--verbose", action="store_true", help="also list each offender with its file and line")
    asked = parser.parse_args(arguments)
    figures = measure(asked.root)
    if not figures.files:
        parser.error(f"--root {asked.root}: no Python file in its folders ftsys and launcher. Name a checkout.")
    print("\n".join([*summary(figures), *(details(figures) if asked.verbose else ())]))


def summary(figures: Figures) -> Iterator[str]:
    """Yield the lines of the report."""
    yield from (*size_table(figures), "", "The largest folders, in Python files with __init__.py")
    yield from (row(count, folder) for folder, count in islice(figures.folders.items(), LARGEST_FOLDERS))
    yield from ("", "Import order")
    yield row(len(figures.against_the_order), "imports that point upward or that another rule forbids")
    yield row(len(figures.cycles), "cycles of files")
    yield from (row("", f"  {', '.join(group)}") for group in figures.cycles)
    yield row(len(figures.imported_once), "modules that only one other module imports")
    yield from ("", f"Docstrings that open with {', '.join(QUESTION_WORDS[:-1])} or {QUESTION_WORDS[-1]}")
    yield row(len(figures.module_questions), "of modules")
    yield row(len(figures.inner_questions), "of classes and functions")


def size_table(figures: Figures) -> Iterator[str]:
    """Yield the number of files and the table of sizes."""
    yield f"{f'{figures.files} Python files':<20}{'median':>8}{'90%':>6}{'largest':>9}"
    for label, sizes in (("lines a file", figures.file_lines), ("lines a function", figures.function_lines)):
        yield f"{label:<20}{sizes.median:>8g}{sizes.ninetieth:>6}{sizes.largest:>9}   {sizes.place}"


def details(figures: Figures) -> Iterator[str]:
    """Yield the offenders under a headline for each kind."""
    yield from block("Imports against the order", figures.against_the_order)
    yield from block("Imports that close cycles", figures.cycle_imports)
    yield from block("Modules imported by one other only", figures.imported_once)
    yield from block("Docstrings of modules that open with a question", figures.module_questions)
    yield from block("Docstrings of classes and functions that open with a question", figures.inner_questions)


def row(count: object, text: str) -> str:
    """Return one line: the count, aligned to the right, and what was counted."""
    return f"{count:>6}   {text}"


def block(title: str, lines: Iterable[str]) -> list[str]:
    """Return an empty line, the title and the indented lines."""
    return ["", title, *(f"  {line}" for line in lines)]


if __name__ == "__main__":
    main()
