"""Runs `ftlaunch logs`: prints the log of a run folder's SLURM job."""

import argparse
import shlex
import time
from pathlib import Path
from typing import BinaryIO

from ftsys.console.printer import copy_out
from ftsys.console.streams import reader_is_gone
from ftsys.errors import DONE, LaunchError
from ftsys.run_folder.layout import LOGS
from launcher.commands.parser import SubParsers, add_run_folder_command
from launcher.slurm.job import LIVE, refuse_overrides, require_job_number, state
from launcher.timeouts import LOG_POLL_SECONDS


def add_parser(commands: SubParsers) -> None:
    """Declare the command's options."""
    parser = add_run_folder_command(commands, "logs")
    parser.add_argument("--follow", action="store_true", help="print new lines until the job has ended")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Copy the log to standard output. Raises LaunchError for a folder without a job or without a log yet."""
    refuse_overrides(overrides)
    folder = Path(options.folder)
    number = require_job_number(folder)
    path = folder / LOGS / f"slurm-{number}.log"
    while options.follow and not path.exists() and state(number) in LIVE:
        time.sleep(LOG_POLL_SECONDS)
    if not path.exists():
        advice = f"`ftlaunch status {shlex.quote(str(folder))}`"
        raise LaunchError(f"job {number} ({state(number)}) has written nothing yet: {advice}.")
    with path.open("rb") as stream:
        while True:
            live = options.follow and state(number) in LIVE  # asked before reading, so the last lines are not missed
            copy_rest(stream)
            if not live or reader_is_gone():
                return DONE
            time.sleep(LOG_POLL_SECONDS)


def copy_rest(stream: BinaryIO) -> None:
    """Copy everything that is new in the stream to standard output."""
    while piece := stream.read(1 << 16):
        copy_out(piece)
