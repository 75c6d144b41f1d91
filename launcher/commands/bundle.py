"""Runs `ftlaunch bundle`: collects model, tokenizer, store and run file in one folder, for nodes without a network."""

import argparse
import subprocess

from ftsys.config import load_run
from ftsys.console.child_python import python_command
from launcher.commands.parser import SubParsers, add_run_file_command


def add_parser(commands: SubParsers) -> None:
    """Declare the command's options."""
    parser = add_run_file_command(commands, "bundle")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the folder to write the bundle to")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Make the bundle in a process of its own, since that tokenizes; returns the process's exit status.

    Raises ConfigError for a run file that cannot be used.
    """
    load_run(options.run, overrides)
    arguments = ["bundle", options.run, "--output", options.output, *overrides]
    return subprocess.run(python_command("-m", "ftsys", *arguments), check=False).returncode
