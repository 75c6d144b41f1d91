"""`ftlaunch cancel`: end the SLURM job of a run folder."""

import argparse
from pathlib import Path

from launcher.commands.shared import Commands
from launcher.slurm.job import LIVE, cancel, demanded_number, refuse_overrides, state


def add_parser(commands: Commands) -> None:
    """Declare the command's words."""
    parser = commands.add_parser("cancel", help="end the SLURM job of a run", allow_abbrev=False)
    parser.add_argument("folder", metavar="RUN_DIR", help="the run folder")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Tell SLURM, once. Raises LaunchError for a folder without a job, and where SLURM does not answer."""
    refuse_overrides(overrides)
    number = demanded_number(Path(options.folder))
    found = state(number)
    if found not in LIVE:
        print(f"job {number} has ended already ({found})")
        return 0
    cancel(number)
    print(f"job {number} was told to end: ranks that train save a checkpoint first")
    return 0
