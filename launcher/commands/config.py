"""`ftlaunch config`: the DeepSpeed file that a run makes, and the files that the project ships."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ftsys.config import load_run
from ftsys.errors import DONE, ConfigError
from launcher.commands.shared import (
    Commands,
    add_command,
    add_gpu_options,
    add_world_options,
    asked_world,
    planned,
)
from launcher.planner.deepspeed_config import file_name
from launcher.planner.shipped_configs import write_shipped


def add_parser(commands: Commands) -> None:
    """Declare the command's words."""
    parser = add_command(commands, "config", "print the DeepSpeed file that a run makes")
    parser.add_argument("run", metavar="RUN.toml", nargs="?", help="the run file")
    add_world_options(parser)
    add_gpu_options(parser)
    parser.add_argument("--train-rows", type=int, help="examples of the training split, for the steps to be counted")
    parser.add_argument("--output", type=Path, help="a file, or a folder in which its name says all that it turns on")
    parser.add_argument("--write-shipped", type=Path, metavar="FOLDER", help="write the project's configs/deepspeed")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print or write the file; returns the exit status. Raises ConfigError for a run that makes none."""
    if options.write_shipped:
        with _writing(options.write_shipped):
            print(f"{len(write_shipped(options.write_shipped))} files written to {options.write_shipped}")
        return DONE
    if options.run is None:
        raise ConfigError("no run file was given: write `ftlaunch config RUN.toml`.")
    run = load_run(options.run, overrides)
    # Who asks for DeepSpeed's file means to start with DeepSpeed.
    plan, text = planned(run, replace(asked_world(run, options), launcher="deepspeed"), options.train_rows)
    if options.output is None:
        print(text, end="")
        return DONE
    path = options.output / file_name(plan) if options.output.is_dir() else options.output
    with _writing(path):
        path.write_text(text, encoding="utf-8")
    print(path)
    return DONE


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written ({error.strerror}): name another place.") from error
