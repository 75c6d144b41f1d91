"""Writes the results of a table as Markdown, CSV, JSON and LaTeX. Two tables of equal results have equal bytes, but for
the times, which have a file or a part of their own."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ftsys.files.atomic import atomic_write_json, atomic_write_text
from ftsys.table.results.collect import Entry, SeedResult, averages
from ftsys.table.results.compare import Comparison
from ftsys.table.results.grids import details, notes, notes_on_times, overview, times

FORMAT = 1
TIMES_HEADING = "## Time"
NAMES = ("table.md", "table.csv", "times.csv", "table.json", "table.tex")


def write_table(folder: Path, entries: Sequence[Entry], comparisons: Sequence[Comparison]) -> list[Path]:
    """Write all forms into the table's folder; returns their paths. Raises StorageError."""
    atomic_write_text(folder / "table.md", "\n".join(_markdown(folder.name, entries, comparisons)) + "\n")
    atomic_write_text(folder / "table.csv", details(entries).csv())
    atomic_write_text(folder / "times.csv", times(entries).csv())
    atomic_write_json(folder / "table.json", _json(entries, comparisons))
    atomic_write_text(folder / "table.tex", "\n".join([*_latex_notes(entries), *overview(entries).latex()]) + "\n")
    return [folder / name for name in NAMES]


def _markdown(title: str, entries: Sequence[Entry], comparisons: Sequence[Comparison]) -> list[str]:
    lines = [f"# {title}", "", *overview(entries).markdown(), "", *(f"- {note}" for note in notes(entries)), ""]
    if comparisons:
        lines += ["## Comparison", "", *(f"- {one.sentence}" for one in comparisons), ""]
    lines += ["## Metrics", "", *details(entries).markdown(), ""]
    remarks = [f"- {note}" for note in notes_on_times(entries)]
    return [*lines, TIMES_HEADING, "", *times(entries).markdown(), *(["", *remarks] if remarks else [])]


def _latex_notes(entries: Sequence[Entry]) -> list[str]:
    return [f"% {note}" for note in notes(entries)]


def _json(entries: Sequence[Entry], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    name, means = averages(entries)
    return {
        "format": FORMAT,
        "entries": [_entry(entry) for entry in entries],
        "average": {"name": name, "models": {model: value and asdict(value) for model, value in means.items()}},
        "comparisons": [asdict(one) for one in comparisons],
        "notes": notes(entries),
        "times": [_times(entry, result) for entry in entries for result in entry.seeds],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "model": entry.model,
        "task": entry.column,
        "starts_from": entry.start or None,
        "first_rows": dict(entry.first_rows),
        "score": entry.score and asdict(entry.score),
        "metrics": {name: value and asdict(value) for name, value in entry.metrics.items()},
        "diverged": {str(seed): why for seed, why in entry.diverged.items()},
        "seeds": [
            {"seed": one.cell.seed, "folder": one.cell.name, "score": one.score, "metrics": dict(one.metrics)}
            for one in entry.seeds
        ],
        "not_finished": {str(seed): state.name for seed, state in entry.others.items()},
    }


def _times(entry: Entry, result: SeedResult) -> dict[str, Any]:
    speed = result.throughput.get("real_tokens_per_s")
    known = {"model": entry.model, "task": entry.column, "seed": result.cell.seed}
    return known | {"seconds": dict(result.timing), "real_tokens_per_s": speed, "energy": dict(result.energy)}
