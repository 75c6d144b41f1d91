"""Formats rows of text as an aligned table, Markdown, CSV or LaTeX."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from ftsys.files.csv_lines import write_csv

_LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
_LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$"}


@dataclass(frozen=True)
class Grid:
    """A table of texts. The first `left` columns hold names and are aligned to the left, the others to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 2

    def text(self) -> list[str]:
        """Return lines with aligned columns: the header, a rule, and the rows."""
        widths = [max(len(cell) for cell in column) for column in zip(self.header, *self.rows, strict=True)]
        lines = [self._aligned(row, widths) for row in (self.header, *self.rows)]
        return [lines[0], "-" * max(map(len, lines)), *lines[1:]]

    def _aligned(self, row: Sequence[str], widths: Sequence[int]) -> str:
        cells = (
            cell.ljust(width) if number < self.left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    def markdown(self) -> list[str]:
        """Return the lines of a Markdown table."""
        rule = ["---" if number < self.left else "--:" for number in range(len(self.header))]
        escaped = [[cell.replace("|", r"\|") for cell in row] for row in (self.header, rule, *self.rows)]
        return [f"| {' | '.join(row)} |" for row in escaped]

    def csv(self) -> str:
        """Return the table as CSV with a header."""
        stream = io.StringIO()
        write_csv(stream, [self.header, *self.rows])
        return stream.getvalue()

    def latex(self) -> list[str]:
        """Return the lines of a LaTeX tabular with booktabs' rules."""
        columns = "".join("l" if number < self.left else "r" for number in range(len(self.header)))
        rows = [" & ".join(map(_latex, row)) + r" \\" for row in (self.header, *self.rows)]
        return [
            rf"\begin{{tabular}}{{{columns}}}",
            *(r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"),
            r"\end{tabular}",
        ]


def _latex(cell: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in cell)
