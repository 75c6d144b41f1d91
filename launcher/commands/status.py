"""`ftlaunch status`: how a run and its SLURM job stand."""

import argparse
import json
from pathlib import Path

from ftsys.errors import LaunchError
from launcher.commands.shared import Commands
from launcher.slurm.job import described, job_number, refuse_overrides


def add_parser(commands: Commands) -> None:
    """Declare the command's words."""
    parser = commands.add_parser("status", help="how a run and its SLURM job stand", allow_abbrev=False)
    parser.add_argument("folder", metavar="RUN_DIR", help="the run folder")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print a line for the job and one for the run. Raises LaunchError for a folder that knows of neither."""
    refuse_overrides(overrides)
    folder = Path(options.folder)
    number, run = job_number(folder), run_line(folder)
    if number is None and run is None:
        raise LaunchError(f"{options.folder!r} is no run folder: there is no status.json and no SLURM job in it.")
    if number is not None:
        print(f"job {number}: {described(number)[1]}")
    print(f"run: {run or 'not started yet'}")
    return 0


def run_line(folder: Path) -> str | None:
    """What status.json says, in a line; None where there is none. Raises LaunchError if it is damaged."""
    path = folder / "status.json"
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
        said = f"{status['state']}, step {status['step']}, {status['phase']}, life {status['attempt']}"
        return f"{said}: {status['reason']}" if status["reason"] else said
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LaunchError(f"{str(path)!r} is damaged ({error}): the run's next life writes it anew.") from error
