"""Shows the results of a table on the terminal, and writes its files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ftsys.report.table import Line, print_lines
from ftsys.table.cells import Cell
from ftsys.table.grid import Grid
from ftsys.table.results.cards import update_cards
from ftsys.table.results.collect import Entry, collect
from ftsys.table.results.compare import Comparison, compare
from ftsys.table.results.grids import details, notes, notes_on_times, overview, times
from ftsys.table.results.write import write_table
from ftsys.table.state import CellState


def show_results(
    folder: Path,
    cells: Sequence[Cell],
    states: Mapping[Path, CellState],
    pair: Sequence[str] | None,
    submission: str | None = None,
) -> None:
    """Print and write the table of all finished cells, and write the spread over seeds into their model cards.

    `pair`: the models to compare; None: where there are two.
    `submission`: the seed whose test predictions go into a zip for the GLUE server, "best" or "first"; None: no zip.
    Raises RunFolderError for a damaged run folder, ConfigError for a wrong pair (see `rows_of`), and StorageError.
    """
    entries = collect(cells, states)
    models = list(dict.fromkeys(entry.model for entry in entries))
    pair = models if pair is None and len(models) == 2 else pair
    comparisons = compare(entries, *pair) if pair else []
    print_lines(_lines(folder, entries, comparisons))  # first: whoever may only read the folder sees it as well
    paths = write_table(folder, entries, comparisons)
    update_cards(entries)
    print_lines([Line(f"written: {', '.join(map(str, paths))}", "note")])
    if submission is not None:
        from ftsys.table.results.submission import write_submissions

        write_submissions(folder, entries, submission)


def _lines(folder: Path, entries: Sequence[Entry], comparisons: Sequence[Comparison]) -> list[Line]:
    lines = [Line(str(folder), "title")]
    parts: tuple[tuple[str, Grid, list[str]], ...] = (
        ("Scores", overview(entries), notes(entries)),
        ("Metrics", details(entries), []),
        ("Time", times(entries), notes_on_times(entries)),
    )
    for title, grid, remarks in parts:
        header, rule, *rows = grid.text()
        lines += [Line("", "note"), Line(title, "title"), Line(header, "header"), Line(rule, "rule")]
        lines += [Line(row, "row") for row in rows] + [Line(f"- {text}", "note") for text in remarks]
    if comparisons:
        lines += [
            Line("", "note"),
            Line("Comparison", "title"),
            *(Line(f"- {one.sentence}", "note") for one in comparisons),
        ]
    return [*lines, Line("", "note")]
