"""Implements `ftsys report`: compares runs in one table, with the mean over seeds."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ftsys.console.printer import show
from ftsys.errors import DONE
from ftsys.report.runs import comparison_rows, find_runs
from ftsys.report.table import print_final

DESCRIPTION = "Compare runs: one row for each, and mean and standard deviation over the seeds of a task and model."


def main(arguments: Sequence[str]) -> int:
    """Print a row for each run, and mean and standard deviation over seeds; returns the exit status."""
    parser = argparse.ArgumentParser(prog="ftsys report", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="run folders, or folders of run folders")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    runs = find_runs(options.runs)
    if options.json:
        show(json.dumps([run.as_json() for run in runs], indent=2))
        return DONE
    rows, extra = comparison_rows(runs)
    unfinished = [f"{run.folder}: {run.state}: {run.reason}" for run in runs if run.reason]
    print_final(rows, title=f"{len(runs)} run{'s' if len(runs) > 1 else ''}", extra_rows=extra, notes=unfinished)
    return DONE
