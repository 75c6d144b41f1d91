"""Implements `ftsys report`: compares runs in a table, and writes a page or images of their figures."""

import argparse
import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from ftsys.console.printer import show
from ftsys.errors import DONE, ConfigError
from ftsys.files.json_safe import json_safe
from ftsys.files.paths import check_output
from ftsys.report.runs import comparison_rows, find_runs
from ftsys.report.table import print_final
from ftsys.run_folder.discover import each_once, find_run_folders

DESCRIPTION = (
    "Compare runs: one row for each, and mean and standard deviation over the seeds of a task and model. "
    "With --html, write a page of curves, errors, calibration, speed and configuration that needs no network."
)
_NEEDED = {"jinja2": "Jinja2", "matplotlib": "matplotlib"}


def main(arguments: Sequence[str]) -> int:
    """Print a row for each run, or write the page or images; returns the exit status."""
    options = _parser().parse_args(arguments)
    ConfigError.raise_if(_without_effect(options))
    if options.html is not None or options.png is not None:
        return _write(options)
    runs = find_runs(options.runs)
    if options.json:
        show(json.dumps(json_safe([run.as_json() for run in runs]), indent=2, allow_nan=False))
        return DONE
    rows, extra = comparison_rows(runs)
    unfinished = [f"{run.folder}: {run.state}: {run.reason}" for run in runs if run.reason]
    print_final(rows, title=f"{len(runs)} run{'s' if len(runs) > 1 else ''}", extra_rows=extra, notes=unfinished)
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ftsys report", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="run folders, or folders of run folders")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page to FILE")
    parser.add_argument("--png", type=Path, metavar="FOLDER", help="write each figure as a PNG file into FOLDER")
    parser.add_argument("--title", metavar="TEXT", help="title of the page; default: the names of the given folders")
    return parser


def _without_effect(options: argparse.Namespace) -> Iterator[str]:
    """Yield a message for options that would change nothing beside the others."""
    written = options.html is not None or options.png is not None
    if options.title is not None and not written:
        yield f"--title {options.title!r} is that of a page: add --html FILE or --png FOLDER."
    if options.json and written:
        yield "--json prints, --html and --png write: leave one of them out."


def _write(options: argparse.Namespace) -> int:
    """Write the page and the images. Raises ConfigError for wrong arguments, and without the extra."""
    _check_extra()
    _check_outputs(options)
    folders = _folders(options.runs)
    from ftsys.data.hub_offline import switch_hub_off

    switch_hub_off()  # the texts of examples come from files and caches that are here
    from ftsys.html_report.facts import read_run_facts
    from ftsys.html_report.page import make_page, write_page, write_pngs

    title = options.title or ", ".join(path.resolve().name for path in options.runs[:4])
    page = make_page([read_run_facts(folder, name) for name, folder in folders.items()], title)
    if options.html is not None:
        size = write_page(page, options.html)
        show(f"{options.html}: {len(folders)} runs, {len(page.figures)} figures, {size / 1e3:,.0f} kB")
    if options.png is not None:
        show(f"{options.png}: {write_pngs(page, options.png)} PNG files")
    return DONE


def _check_extra() -> None:
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(f"--html and --png need {' and '.join(missing)}: pip install 'ftsys[report]'.")


def _check_outputs(options: argparse.Namespace) -> None:
    if options.html is not None:
        check_output("--html", options.html)
    if options.png is not None:
        check_output("--png", options.png, folder=True)


def _folders(given: Sequence[Path]) -> dict[str, Path]:
    """Return the run folders by a short name that tells them apart. Raises ConfigError for a folder without a run."""
    found = {path: find_run_folders(path) for path in given}
    ConfigError.raise_if(
        f"{str(path)!r} is not a run folder and holds none: name the output_dir of a run."
        for path, folders in found.items()
        if not folders
    )
    names: dict[str, Path] = {}
    for path, folders in each_once(found).items():
        for folder in folders:
            short = str(folder.relative_to(path)) if folder != path else folder.resolve().name
            unique = short if short not in names else str(folder)
            names[unique] = folder
    return names
