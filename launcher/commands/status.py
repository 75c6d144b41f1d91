"""Runs `ftlaunch status`: shows the state of a run and of its SLURM job."""

import argparse
from pathlib import Path

from ftsys.console.printer import show
from ftsys.errors import DONE, LaunchError, RunFolderError
from ftsys.run_folder.status import read_status
from launcher.commands.parser import SubParsers, add_run_folder_command
from launcher.slurm.job import describe_job, job_number, refuse_overrides


def add_parser(commands: SubParsers) -> None:
    """Declare the command's options."""
    add_run_folder_command(commands, "status").set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print a line for the job and one for the run. Raises LaunchError for a folder that has neither."""
    refuse_overrides(overrides)
    folder = Path(options.folder)
    number, run = job_number(folder), run_line(folder)
    if number is None and run is None:
        raise LaunchError(f"{options.folder!r} is not a run folder: there is no status.json and no SLURM job in it.")
    if number is not None:
        show(f"job {number}: {describe_job(number)[1]}")
    show(f"run: {run or 'not started yet'}")
    return DONE


def run_line(folder: Path) -> str | None:
    """Return status.json as one line; None if there is none. Raises LaunchError if it is damaged."""
    try:
        status = read_status(folder)
    except RunFolderError as error:
        raise LaunchError(str(error)) from error
    if status is None:
        return None
    line = f"{status.state}, step {status.step}, {status.phase}, attempt {status.attempt}"
    return f"{line}: {status.reason}" if status.reason else line
