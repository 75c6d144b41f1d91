"""`ftlaunch`: what a run will do on a machine, before it is started, and its start. Answers without torch."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from ftsys.config import split_overrides
from ftsys.errors import FtsysError

OVERRIDES = "A value of the run file is overridden as --section.key VALUE; the command line wins over the file."

COMMANDS = {
    "plan": "show every choice that a run leaves open, resolved, with its reason",
    "config": "print the DeepSpeed file that a run makes",
    "run": "start a run's ranks: here, on several machines, or in a SLURM allocation",
    "sbatch": "submit a run to SLURM, or show the script that would be submitted",
    "status": "how a run and its SLURM job stand",
    "logs": "what a run's SLURM job has written",
    "cancel": "end the SLURM job of a run",
    "doctor": "look at every node and say what would fail later; changes nothing",
    "bundle": "collect what a run needs into one folder, for nodes without a network",
}
"""Name -> help; what a command does is in `launcher.commands.NAME`, which is imported when it is asked for."""


def build_parser(asked: str = "") -> argparse.ArgumentParser:
    """The command line of `ftlaunch`, but for the run file's overrides; of `asked` with its own words."""
    parser = argparse.ArgumentParser(prog="ftlaunch", description=__doc__, epilog=OVERRIDES, allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, help_text in COMMANDS.items():
        if name == asked:
            import_module(f"launcher.commands.{name}").add_parser(commands)
        else:
            commands.add_parser(name, help=help_text)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run `ftlaunch` and return its exit status; errors a user can act on are printed without a traceback."""
    own, overrides = split_overrides(sys.argv[1:] if words is None else words)
    options = build_parser(own[0] if own else "").parse_args(own)
    try:
        return int(options.command(options, overrides))
    except FtsysError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_status
