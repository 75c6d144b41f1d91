"""Declares the sub-commands of `ftlaunch` for argparse. Imports nothing heavy, so that `ftlaunch --help` is fast."""

import argparse
from typing import Protocol

OVERRIDES = (
    "Any value of the run file can be overridden as --section.key VALUE; the command line wins over the run file."
)

COMMANDS = {
    "plan": "resolve every choice that a run leaves open, and show the reasons",
    "config": "print the DeepSpeed file of a run",
    "run": "start a run's ranks: on this machine, on several machines, or in a SLURM allocation",
    "sbatch": "submit a run to SLURM, or print the batch script",
    "status": "show the state of a run and of its SLURM job",
    "logs": "print the log of a run's SLURM job",
    "cancel": "end the SLURM job of a run",
    "doctor": "check every node for problems that would make a run fail later; changes nothing",
    "bundle": "collect everything that a run needs in one folder, for nodes without a network",
}
"""Name -> help text. The module `launcher.commands.NAME` is imported only for the command that is used."""


class SubParsers(Protocol):
    """The part of argparse's `add_subparsers` result that is used here."""

    def add_parser(self, name: str, **options: object) -> argparse.ArgumentParser:
        """Make the parser of a sub-command."""


def add_run_file_command(commands: SubParsers, name: str, optional: bool = False) -> argparse.ArgumentParser:
    """Add a sub-command that takes a run file and its overrides."""
    parser = _add(commands, name, epilog=OVERRIDES)
    parser.add_argument("run", metavar="RUN.toml", nargs="?" if optional else None, help="the run file")
    return parser


def add_run_folder_command(commands: SubParsers, name: str) -> argparse.ArgumentParser:
    """Add a sub-command that takes a run folder."""
    parser = _add(commands, name)
    parser.add_argument("folder", metavar="RUN_DIR", help="the run folder (output_dir of the run file)")
    return parser


def _add(commands: SubParsers, name: str, **options: object) -> argparse.ArgumentParser:
    text = COMMANDS[name]
    description = f"{text[0].upper()}{text[1:]}."
    return commands.add_parser(name, help=text, description=description, allow_abbrev=False, **options)
