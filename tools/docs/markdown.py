"""Builds pieces of Markdown: tables, and the note that a page is generated."""

import re
from collections.abc import Iterable, Sequence

GENERATED = "<!-- Written by `make docs` from the code. Change the code, not this page. -->\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return a Markdown table; `right` are the numbers of the columns that are aligned to the right."""
    rule = ["--:" if column in right else "---" for column in range(len(head))]
    return "".join(
        f"| {' | '.join(cells)} |\n" for cells in [head, rule, *([cell(text) for text in row] for row in rows)]
    )


def options_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column has options of a command, which docs/style.css keeps on one line."""
    return f'<div class="options" markdown>\n\n{table(head, rows)}\n</div>\n'


def cell(text: str) -> str:
    """Return a text as one cell of a table: on one line, with its bars escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def sentence(text: str) -> str:
    """Return a text that starts with a capital letter, unless it starts with a name, and ends with a full stop."""
    text = " ".join(text.split())
    is_word = re.match(r"[a-z]+\b(?!['.,-])", text)
    return f"{text[:1].upper() if is_word else text[:1]}{text[1:]}{'' if text.endswith(('.', '?', ':')) else '.'}"
