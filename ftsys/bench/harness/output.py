"""Provides the flags, tables, plots and records that all benchmarks share."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftsys.bench.harness.record import DEFAULT_FOLDER, Measurement, write_record
from ftsys.console.printer import show
from ftsys.errors import ConfigError
from ftsys.report.table import Row, print_final

Cell = float


@dataclass
class Findings:
    """The results of a benchmark, for its record, tables and plot."""

    measurements: dict[str, Measurement] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, dict[str, dict[str, Cell]]] = field(default_factory=dict)
    """Title -> name of a row -> column -> figure."""
    notes: list[str] = field(default_factory=list)
    plots: bool = True
    """False where bars of the tables' first columns would say nothing."""

    def ratio(self, name: str, values: Sequence[float]) -> Measurement:
        """Add a ratio from its value in each round: the median, with the interquartile range as its spread."""
        found = Measurement.of(values, "ratio", higher_is_better=True)
        self.measurements[name], self.ratios[name] = found, found.median
        return found


def bench_parser(name: str, description: str, repeats: int, models: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Create a parser with the flags of every benchmark; `models` are the default models, if it trains any."""
    parser = argparse.ArgumentParser(prog=f"ftsys bench {name}", description=description, allow_abbrev=False)
    parser.add_argument("--repeats", type=int, help=f"measured repeats after one warm-up (default {repeats})")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a tiny model and one repeat where none is named",
    )
    add_output_option(parser)
    parser.add_argument("--name", default=name, help=f"name of the record (default {name})")
    if models:
        named = f"minilm, bert-base, bert-large, tiny, a folder or a Hub name (default {' '.join(models)})"
        parser.add_argument("--models", nargs="+", metavar="MODEL", help=named)
    parser.set_defaults(usual={"repeats": repeats, "models": list(models)})
    return parser


def add_output_option(parser: argparse.ArgumentParser) -> None:
    """Add `--output`, the folder of the record. Without it, only a checkout's record is kept."""
    default = DEFAULT_FOLDER if DEFAULT_FOLDER.is_dir() else None
    text = "folder for the record (default: benchmarks/results of the checkout, if there is one)"
    parser.add_argument("--output", "--out", type=Path, default=default, metavar="FOLDER", help=text)


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parse the flags; `--quick` changes the defaults of models and repeats. Raises ConfigError for no repeat."""
    options = parser.parse_args(words)
    defaults = {"repeats": 1, "models": ["tiny"]} if options.quick else options.usual
    for name, value in defaults.items():
        if getattr(options, name, ()) is None:
            setattr(options, name, value)
    if options.repeats < 1:
        raise ConfigError(f"--repeats {options.repeats!r} measures nothing. Write a whole number above 0.")
    return options


def conclude(name: str, found: Findings, folder: Path | None) -> None:
    """Print tables and notes; with a folder, write the record, and the plot where matplotlib is installed."""
    places: dict[str, Path | str] = {}
    if folder is not None:
        record = write_record(folder, name, found.measurements, found.ratios, found.settings)
        places["record"] = record
        if found.tables and found.plots:
            places["plot"] = draw(record.with_suffix(".svg"), found.tables) or "none: matplotlib is not installed"
    tables = list(found.tables.items())
    for title, rows in tables[:-1]:
        print_final(_rows(rows), title=title)
        show()
    title, rows = tables[-1] if tables else (name, {})
    print_final(_rows(rows), title=title, notes=found.notes, places=places)


def _rows(table: Mapping[str, Mapping[str, Cell]]) -> list[Row]:
    return [Row(run=name, metrics=cells) for name, cells in table.items()]


def draw(path: Path, tables: Mapping[str, Mapping[str, Mapping[str, Cell]]]) -> Path | None:
    """Draw the first column of each table as bars, one panel per table, into an SVG; None without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "ftsys"  # makes the file reproducible
    bars = sum(len(table) for table in tables.values())
    heights = [len(table) for table in tables.values()]
    figure, panels = pyplot.subplots(
        len(tables), 1, figsize=(8, 0.45 * bars + 1.1 * len(tables)), height_ratios=heights, squeeze=False
    )
    for panel, (title, table) in zip(panels[:, 0], tables.items(), strict=True):
        _draw_table(panel, title, table)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def _draw_table(panel: Any, title: str, table: Mapping[str, Mapping[str, Cell]]) -> None:
    names = list(table)
    column = next(iter(table[names[0]]))
    values = [table[name].get(column, 0.0) for name in names]
    drawn = panel.barh(names, values, color=["#1f6f8b" if name.startswith("ours") else "#b0b7bf" for name in names])
    panel.bar_label(drawn, [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values], padding=3)
    panel.invert_yaxis()
    panel.margins(x=0.15)
    panel.set_title(title, fontsize="medium", loc="left")
    panel.set_xlabel(column)
