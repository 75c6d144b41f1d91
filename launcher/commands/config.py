"""Runs `ftlaunch config`: prints the DeepSpeed file of a run, or writes the files that the project ships."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ftsys.config import load_run
from ftsys.console.printer import show
from ftsys.errors import DONE, ConfigError, StorageError
from ftsys.files.atomic import atomic_write_text
from launcher.commands.parser import SubParsers, add_run_file_command
from launcher.commands.planning import (
    add_gpu_options,
    add_rows_option,
    add_world_options,
    plan_run,
    requested_world,
)
from launcher.planner.deepspeed_config import file_name
from launcher.planner.shipped_configs import write_shipped


def add_parser(commands: SubParsers) -> None:
    """Declare the command's options."""
    parser = add_run_file_command(commands, "config", optional=True)
    add_world_options(parser)
    add_gpu_options(parser)
    add_rows_option(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="the file to write, or a folder, in which the file gets a name that lists its settings",
    )
    parser.add_argument(
        "--write-shipped", type=Path, metavar="FOLDER", help="write the files of the project's configs/deepspeed"
    )
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print or write the file; returns the exit status. Raises ConfigError for a run without a DeepSpeed file."""
    if options.write_shipped:
        with _writing(options.write_shipped):
            show(f"{len(write_shipped(options.write_shipped))} files written to {options.write_shipped}")
        return DONE
    if options.run is None:
        raise ConfigError("no run file was given: write `ftlaunch config RUN.toml`.")
    run = load_run(options.run, overrides)
    # A user who asks for the DeepSpeed file will start the run with DeepSpeed.
    plan, text = plan_run(run, replace(requested_world(run, options), launcher="deepspeed"), options.train_rows)
    if options.output is None:
        show(text, end="")
        return DONE
    path = options.output / file_name(plan) if options.output.is_dir() else options.output
    with _writing(path):
        _write(path, text)
    show(str(path))
    return DONE


def _write(path: Path, text: str) -> None:
    """Replace a file, also one that a link leads to, atomically; write into what is no file, such as /dev/stdout.

    Raises OSError and StorageError.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
    else:
        target = path.resolve()
        target.parent.stat()  # a folder that is missing is a mistake, and not made
        atomic_write_text(target, text)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, StorageError) as error:
        reason = getattr(error.__cause__ or error, "strerror", None) or error
        raise ConfigError(f"{str(path)!r} cannot be written ({reason}): name another place.") from error
