"""`ftlaunch logs`: what the SLURM job of a run folder has written, and writes."""

import argparse
import sys
import time
from pathlib import Path
from typing import BinaryIO

from ftsys.errors import LaunchError
from launcher.commands.shared import Commands
from launcher.slurm.job import LIVE, demanded_number, refuse_overrides, state
from launcher.timeouts import LOG_POLL_SECONDS


def add_parser(commands: Commands) -> None:
    """Declare the command's words."""
    parser = commands.add_parser("logs", help="what a run's SLURM job has written", allow_abbrev=False)
    parser.add_argument("folder", metavar="RUN_DIR", help="the run folder")
    parser.add_argument("--follow", action="store_true", help="go on until the job has ended")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Copy the log to standard output. Raises LaunchError for a folder without a job or without a log yet."""
    refuse_overrides(overrides)
    folder = Path(options.folder)
    number = demanded_number(folder)
    path = folder / f"logs/slurm-{number}.log"
    while options.follow and not path.exists() and state(number) in LIVE:
        time.sleep(LOG_POLL_SECONDS)
    if not path.exists():
        raise LaunchError(f"job {number} ({state(number)}) has written nothing yet: `ftlaunch status {folder}`.")
    with path.open("rb") as stream:
        while True:
            live = options.follow and state(number) in LIVE  # asked first: what follows may be the job's last words
            copy_rest(stream)
            if not live:
                return 0
            time.sleep(LOG_POLL_SECONDS)


def copy_rest(stream: BinaryIO) -> None:
    """Write what has come since to standard output."""
    while piece := stream.read(1 << 16):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
