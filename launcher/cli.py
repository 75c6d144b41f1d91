"""Runs `ftlaunch`: parses its command line and calls the sub-command. Imports no torch."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from ftsys import __version__
from ftsys.console.entry import run_program
from ftsys.console.printer import complain
from ftsys.did_you_mean import check_command
from ftsys.errors import FtsysError
from launcher.commands.parser import COMMANDS, OVERRIDES

DESCRIPTION = "Plan, check and start training runs of ftsys, on one machine or many. No command loads torch."


def build_parser(used: str = "") -> argparse.ArgumentParser:
    """Return the parser of `ftlaunch`, without overrides of the run file. Only the command `used` gets its options."""
    parser = argparse.ArgumentParser(prog="ftlaunch", description=DESCRIPTION, epilog=OVERRIDES, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"ftlaunch {__version__}, of ftsys")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, help_text in COMMANDS.items():
        if name == used:
            import_module(f"launcher.commands.{name}").add_parser(commands)
        else:
            commands.add_parser(name, help=help_text)
    return parser


def run() -> int:
    """Run `main` as the whole process."""
    return run_program(main)


def main(words: Sequence[str] | None = None) -> int:
    """Run `ftlaunch` and return its exit status; errors that a user can correct are printed without a traceback."""
    from ftsys.config import split_overrides

    own, overrides = split_overrides(sys.argv[1:] if words is None else words)
    try:
        check_command("ftlaunch", own, COMMANDS)
        options = build_parser(own[0] if own else "").parse_args(own)
        return int(options.command(options, overrides))
    except FtsysError as error:
        for line in str(error).splitlines():
            complain(line)
        return error.exit_status
