"""Runs `ftlaunch cancel`: ends the SLURM job of a run folder."""

import argparse
from pathlib import Path

from ftsys.console.printer import show
from ftsys.errors import DONE
from launcher.commands.parser import SubParsers, add_run_folder_command
from launcher.slurm.job import LIVE, cancel, refuse_overrides, require_job_number, state


def add_parser(commands: SubParsers) -> None:
    """Declare the command's options."""
    add_run_folder_command(commands, "cancel").set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Cancel the job once. Raises LaunchError for a folder without a job, and if SLURM does not answer."""
    refuse_overrides(overrides)
    number = require_job_number(Path(options.folder))
    found = state(number)
    if found not in LIVE:
        show(f"job {number} has ended already ({found})")
        return DONE
    cancel(number)
    show(f"job {number} will end: ranks that are training save a checkpoint first")
    return DONE
