"""Forks processes from one that has imported torch, transformers and ftsys: a start takes milliseconds, not seconds."""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path


@cache
def fork_server() -> ForkServerContext:
    """Return the context of such processes. Its server starts with the first of them and lives as long as this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    return context


def write_to(outputs: Sequence[Path]) -> None:
    """Send this process's standard output and error to files: one for each, or one for both."""
    for number, path in zip((1, 2), (outputs[0], outputs[-1]), strict=True):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, number)
        os.close(handle)


def be_ftsys(words: Sequence[str], folder: Path, environment: Mapping[str, str], outputs: Sequence[Path]) -> None:
    """Be `ftsys WORDS` in a folder: the whole program, with its signals and its exit status."""
    write_to(outputs)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["ftsys", *words]
    from ftsys.cli import run

    sys.exit(run())
