"""`ftlaunch bundle`: model, tokenizer, store and run file in one folder, for nodes that have no network."""

import argparse
import subprocess
import sys

from ftsys.config import load_run
from launcher.commands.shared import Commands, add_command


def add_parser(commands: Commands) -> None:
    """Declare the command's words."""
    help_text = "collect what a run needs into one folder, for nodes without a network"
    parser = add_command(commands, "bundle", help_text)
    parser.add_argument("run", metavar="RUN.toml", help="the run file")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where the bundle is to lie")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Make the bundle in a process of its own, for it tokenizes; returns that process's exit status.

    Raises ConfigError for a run file that cannot be used.
    """
    load_run(options.run, overrides)
    words = ["bundle", options.run, "--output", options.output, *overrides]
    return subprocess.run([sys.executable, "-m", "ftsys", *words], check=False).returncode
