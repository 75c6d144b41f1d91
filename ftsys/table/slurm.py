"""Submits the cells of a table as a SLURM job array, one task for each cell, through slurm/job.sh."""

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ftsys.config import dump_toml
from ftsys.console.printer import show
from ftsys.errors import DONE, LaunchError
from ftsys.files.atomic import atomic_write_text
from ftsys.run_folder.layout import LOGS
from ftsys.table.cells import CELL_FILE, Cell
from ftsys.table.prepare import prepare
from ftsys.table.spec import TableSpec
from ftsys.table.state import CellState, state_of
from launcher.commands.sbatch import job_of
from launcher.slurm.batch_script import Job, render
from launcher.slurm.job import LIVE, run_slurm

TASK_FILE = f"{LOGS}/slurm-task"
"""File in a cell's run folder: the array's number and the cell's place in it, as ARRAY_TASK."""


def submit_table(spec: TableSpec, cells: Sequence[Cell], options: argparse.Namespace) -> int:
    """Submit all cells that are not settled and in no queue; returns the exit status.

    Cells that others start from are an array of their own, and so are those others: it waits for the end of the first.
    Raises LaunchError, and what `prepare` raises for wrong input.
    """
    live = set() if options.dry_run else live_cells(cells)
    states = {cell.folder: state_of(cell) for cell in cells}
    if options.dry_run and options.retry:
        states = {folder: state.retried() for folder, state in states.items()}
    left = _startable([cell for cell in cells if cell.folder not in live], states)
    if live:
        show(f"{len(live)} runs are in SLURM's queue already")
    prepare(left)
    needed, waits = {cell.needs for cell in left}, [cell for cell in left if cell.needs]
    before = {str(_task_of(folder)).partition("_")[0] for folder in live & needed}
    first = [cell for cell in left if cell.folder in needed]
    before |= {_submit(spec, first, options)} if first else set()
    others = [cell for cell in left if not cell.needs and cell.folder not in needed]
    for part, after in ((others, ""), (waits, ":".join(sorted(before)))):
        if part:
            _submit(spec, part, options, after)
    if not options.dry_run:
        show("the results, at any time: the same command with --results in place of --slurm")
    return DONE


def _startable(cells: Sequence[Cell], states: Mapping[Path, CellState]) -> list[Cell]:
    """Return the cells that are not settled, without those whose model to start from will never be there."""
    failed = {folder for folder, state in states.items() if state.name == "failed"}
    lost = [cell for cell in cells if cell.needs in failed]
    if lost:
        show(f"{len(lost)} runs are left out, because the run that they start from failed, such as {lost[0].name!r}")
    return [cell for cell in cells if cell not in lost and not states[cell.folder].is_settled]


def _submit(spec: TableSpec, cells: Sequence[Cell], options: argparse.Namespace, after: str = "") -> str:
    """Submit an array that waits for the end of those in `after`, or print its script in a dry run.

    Returns its number, or what stands for it in a dry run.
    """
    text = render(_job(spec, cells, options, after))
    if options.dry_run:
        show(text, end="")
        return "FIRST_ARRAY"
    for cell in cells:
        atomic_write_text(cell.folder / CELL_FILE, dump_toml(cell.run))
    script = spec.folder / LOGS / f"array-of-{len(cells)}.sbatch"
    atomic_write_text(script, text)
    number = run_slurm("sbatch", "--parsable", str(script)).strip().partition(";")[0]
    for task, cell in enumerate(cells):
        atomic_write_text(cell.folder / TASK_FILE, f"{number}_{task}\n")
    show(f"job array {number}: {len(cells)} runs; their output is in {spec.folder / LOGS}")
    return number


def _job(spec: TableSpec, cells: Sequence[Cell], options: argparse.Namespace, after: str) -> Job:
    run_files = tuple(str((cell.folder / CELL_FILE).absolute()) for cell in cells)
    job = job_of(options, cells[0].origin, spec.run_file, ())
    folder = str(spec.folder.absolute())
    return dataclasses.replace(
        job, run_folder=folder, arguments=(), array=run_files, array_limit=options.at_a_time, after=after
    )


def live_cells(cells: Sequence[Cell]) -> set[Path]:
    """Return the run folders of the cells that wait or run in SLURM. Raises LaunchError if SLURM does not answer."""
    tasks = {cell.folder: task for cell in cells if (task := _task_of(cell.folder))}
    if not tasks:
        return set()
    jobs = ",".join(sorted({task.partition("_")[0] for task in tasks.values()}))
    try:
        shown = run_slurm("squeue", "--noheader", "--array", f"--jobs={jobs}", "--format=%i|%T")
    except LaunchError as error:
        if "Invalid job id" not in str(error):  # SLURM has forgotten all of them
            raise
        shown = ""
    live = {name for name, _, state in (line.partition("|") for line in shown.split()) if state in LIVE}
    return {folder for folder, task in tasks.items() if task in live}


def _task_of(folder: Path) -> str | None:
    """Return ARRAY_TASK of a cell; None if it was in no array. Raises LaunchError for a damaged file."""
    path = folder / TASK_FILE
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not re.fullmatch(r"\d+_\d+", text):
        raise LaunchError(f"{str(path)!r} holds {text!r}, which is no task of an array: remove the file.")
    return text


def refuse_live(cells: Sequence[Cell]) -> None:
    """Raise LaunchError where SLURM is to train a cell that this machine is now asked to train."""
    live = live_cells(cells)
    if live:
        raise LaunchError(
            f"{len(live)} runs of this table are in SLURM's queue, such as {str(min(live))!r}: wait for them, "
            "or end them with scancel."
        )
