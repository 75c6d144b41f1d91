"""Implements `ftsys table`: trains every model on every task with every seed, and shows one table of the results."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ftsys.config.overrides import split_overrides
from ftsys.console.printer import show
from ftsys.errors import DONE, FAILED, NOT_OURS, STOPPED_EARLY, ConfigError
from ftsys.table.cells import Cell, cells_of
from ftsys.table.spec import TableSpec, read_spec
from ftsys.table.state import CellState, check_folders, forget_failures, state_of
from launcher.commands.sbatch import add_job_options

SEEDS = ("best", "first")

DESCRIPTION = (
    "Train every model on every task with every seed, each in a run folder of its own below output_dir, and show one "
    "table. The same command goes on where it was stopped."
)
EPILOG = "Every key of the run file can be overridden with --section.key VALUE; it then holds for all runs."


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of `ftsys table`."""
    parser = argparse.ArgumentParser(prog="ftsys table", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    add = parser.add_argument
    add("run_file", metavar="RUN.toml", help="the run file: settings of all runs, and [table]")
    add("--models", nargs="+", default=[], metavar="MODEL", help="rows: names or folders of models, or run files")
    add("--tasks", nargs="+", default=[], metavar="TASK", help='columns: GLUE tasks, "all", or run files of own tasks')
    add("--seeds", nargs="+", default=[], metavar="SEEDS", help="such as 1..5, or 1 3 7")
    add("--transfer", default="", metavar="TASK", help="start RTE, MRPC and STS-B from this task's model: mnli")
    add("--dry-run", action="store_true", help="show runs, predicted time and memory; tokenize, but train nothing")
    add("--results", action="store_true", help="train nothing: show the table of what is finished")
    add("--compare", nargs=2, metavar=("A", "B"), help="compare two models (default: the two of a table with two)")
    add(
        "--submission",
        nargs="?",
        const="best",
        choices=SEEDS,
        help="write a zip for the GLUE server (default: best seed)",
    )
    add("--retry", action="store_true", help="try runs that have failed twice once more")
    add("--slots", type=int, metavar="N", help="runs at a time on CPUs (default: 4 cores each, but 2 at least)")
    add("--runs-per-gpu", type=int, default=1, metavar="N", help="runs that share a GPU (default: %(default)s)")
    add("--slurm", action="store_true", help="submit the runs as a SLURM job array instead of training them here")
    group = parser.add_argument_group("resources of each run, with --slurm; --cpu without it too")
    group.add_argument(
        "--at-a-time", type=int, default=0, metavar="N", help="the most runs that SLURM starts at a time"
    )
    add_job_options(group)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run `ftsys table`; returns the exit status. Raises FtsysError."""
    arguments, overrides = split_overrides(arguments)
    options = build_parser().parse_args(arguments)
    ConfigError.raise_if(_without_effect(options))
    spec = read_spec(options.run_file, overrides, options.models, options.tasks, options.seeds, options.transfer)
    cells = cells_of(spec)
    if options.compare:  # a wrong name is told before anything is trained
        from ftsys.table.results.compare import rows_of

        rows_of(options.compare, (cell.model for cell in cells))
    check_folders(cells)
    if options.results:
        return _finish(spec, cells, options)
    if options.retry and not options.dry_run:
        for cell in cells:
            forget_failures(cell)
    if options.slurm:
        from ftsys.table.slurm import submit_table

        return submit_table(spec, cells, options)
    return _train(spec, cells, options)


def _without_effect(options: argparse.Namespace) -> Iterator[str]:
    """Yield a message for options that would change nothing beside the others."""
    jobs = argparse.ArgumentParser()
    add_job_options(jobs)
    defaults = vars(jobs.parse_args([])) | {"at_a_time": 0}
    of_jobs = [name for name, default in defaults.items() if name != "cpu" and getattr(options, name) != default]
    if of_jobs and not options.slurm:
        yield f"{_flags(of_jobs)} are of SLURM jobs: add --slurm, or leave them out."
    of_slots = [name for name, default in (("slots", None), ("runs_per_gpu", 1)) if getattr(options, name) != default]
    if of_slots and options.slurm:
        yield f"{_flags(of_slots)} are of runs on this machine: leave them out with --slurm."
    if options.retry and options.results:
        yield "--retry trains, and --results does not: leave one of them out."


def _flags(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _train(spec: TableSpec, cells: Sequence[Cell], options: argparse.Namespace) -> int:
    """Plan the cells that are not settled, train them, and show the results."""
    from ftsys.table.dry_run import plan_lines
    from ftsys.table.forecast import forecasts_of
    from ftsys.table.pool.slots import divide
    from ftsys.table.prepare import prepare
    from ftsys.table.slurm import refuse_live

    slots, places = divide(options.slots, options.runs_per_gpu, options.cpu)
    states = {cell.folder: state_of(cell) for cell in cells}
    if options.dry_run:
        states = {folder: state.retried() if options.retry else state for folder, state in states.items()}
        for line in plan_lines(cells, states, forecasts_of(cells, prepare(cells), slots), slots):
            show(line)
        return DONE
    if any(not state.is_settled for state in states.values()):
        refuse_live(cells)
        from ftsys.table.pool.whole import train_cells

        states = dict(train_cells(cells, states, slots, places))
    refused = {folder: state for folder, state in states.items() if state.name == "refused"}
    return _finish(spec, cells, options, refused)


def _finish(
    spec: TableSpec, cells: Sequence[Cell], options: argparse.Namespace, refused: Mapping[Path, CellState] | None = None
) -> int:
    """Write and show the results of what is finished; returns the exit status.

    `refused` has the cells whose folders were found to hold another run: the same command would not go on with them.
    """
    from ftsys.table.results.show import show_results

    known = refused or {}
    states = {cell.folder: known.get(cell.folder) or state_of(cell, record=not options.results) for cell in cells}
    show_results(spec.folder, cells, states, options.compare, options.submission)
    if refused:
        return NOT_OURS
    if any(state.name == "failed" for state in states.values()):
        return FAILED
    return DONE if options.results or all(state.name == "done" for state in states.values()) else STOPPED_EARLY
