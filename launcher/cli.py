"""`ftlaunch`: what a run will do on a machine, before it is started, and its start. Answers without torch."""

import argparse
import sys
from collections.abc import Sequence

from ftsys.config import split_overrides
from ftsys.errors import FtsysError
from launcher.commands import bundle, cancel, config, doctor, logs, plan, run, sbatch, status
from launcher.commands.shared import OVERRIDES

COMMANDS = (plan, config, run, sbatch, status, logs, cancel, doctor, bundle)


def build_parser() -> argparse.ArgumentParser:
    """The command line of `ftlaunch`, but for the run file's overrides."""
    parser = argparse.ArgumentParser(prog="ftlaunch", description=__doc__, epilog=OVERRIDES, allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run `ftlaunch` and return its exit status; errors a user can act on are printed without a traceback."""
    own, overrides = split_overrides(sys.argv[1:] if words is None else words)
    options = build_parser().parse_args(own)
    try:
        return int(options.command(options, overrides))
    except FtsysError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_status
