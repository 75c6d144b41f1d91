"""Implements `ftsys sweep`: parses its arguments."""

import argparse
import os
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ftsys.config import split_overrides
from ftsys.console.child_python import python_command
from ftsys.errors import DONE, ConfigError

DESCRIPTION = (
    "Search for the best values of keys of a run file. Optuna proposes them, and each trial is an ordinary run in "
    "SWEEP_DIR/trial-N. Start the same command in several processes or on several nodes to share the trials; start it "
    "again to go on after an interruption."
)
SPACE = (
    "a key and its values: a list (batch.global_size=16,32,64), a range (train.epochs=2..5 or "
    "trainer.weight_decay=0.0..0.1) or a log range (train.learning_rate=log:1e-5..1e-4)"
)
ALSO_KEYS = ("trials", "objective", "sampler", "pruner")
"""Options that are keys of [sweep] as well."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="ftsys sweep",
        description=DESCRIPTION,
        allow_abbrev=False,
        epilog="Every key of the run file can be overridden with --section.key VALUE, for example --train.epochs 2.",
    )
    parser.add_argument("run_file", type=Path, metavar="RUN.toml", help="the run file that all trials share")
    parser.add_argument("--space", nargs="+", default=[], metavar="KEY=VALUES", help=SPACE)
    parser.add_argument(
        "--trials", metavar="N", help="the trials of the study in total, over all processes (default: 20)"
    )
    parser.add_argument(
        "--objective", metavar="METRIC", help="the metric to improve (default: train.keep_best, or the first)"
    )
    parser.add_argument("--sampler", metavar="NAME", help="tpe, random or grid (default: tpe)")
    parser.add_argument("--pruner", metavar="NAME", help="median, halving or none (default: median)")
    text = "the folder of the sweep (default: the run file's output_dir with -sweep)"
    parser.add_argument("--output", type=Path, metavar="SWEEP_DIR", help=text)
    text = 'the command that trains, such as "ftlaunch run" for several devices (default: ftsys train)'
    parser.add_argument("--command", metavar="COMMAND", help=text)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the sweep; returns the exit status."""
    own, overrides = split_overrides(arguments)
    options, unknown = build_parser().parse_known_args(own)
    ConfigError.raise_if(f"{word!r} is not an argument of `ftsys sweep`: see --help." for word in unknown)
    if "RANK" in os.environ:
        raise ConfigError(
            "ftsys sweep is no rank, and RANK is set: start it without a launcher, and name that of the trials, "
            'as in --command "ftlaunch run".'
        )
    if find_spec("optuna") is None:
        raise ConfigError("ftsys sweep needs Optuna, which is not installed: pip install 'ftsys[sweep]'.")
    from ftsys.sweep.settings import read_sweep

    given = {name: getattr(options, name) for name in ALSO_KEYS if getattr(options, name) is not None}
    overrides += [word for name, value in given.items() for word in (f"--sweep.{name}", value)]
    command = _words(options.command or "") or python_command("-m", "ftsys", "train")
    sweep = read_sweep(options.run_file, overrides, options.space, options.output)
    from ftsys.sweep.run import run_sweep  # loads what tokenizes: wrong input is reported before it

    run_sweep(sweep, command)
    return DONE


def _words(command: str) -> list[str]:
    """Split the command as a shell does. Raises ConfigError for one with an open quotation mark or backslash."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ConfigError(
            f"--command {command!r} cannot be split into words ({error}): close its quotation marks, and write a "
            "backslash that belongs to a word twice."
        ) from error
