"""Runs `ftsys bench NAME`: one benchmark, with its peers in the same run."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from ftsys.console.printer import show
from ftsys.errors import DONE, ConfigError

BENCHMARKS = {
    "data": "tokenizing, assembling a batch, opening a store",
    "step": "whole optimizer steps",
    "train": "whole trainings with evaluation",
    "eval": "predictions",
    "scripts": "training scripts of many shapes, with the stock Trainer and with ours",
    "predict": "rows of a file scored by a trained classifier",
    "startup": "time from the command to the first optimizer step",
    "save": "checkpoints: how long a step waits, a save takes, a resume takes",
    "scaling": "several ranks on this machine; the load balance of thousands, simulated",
    "mixing": "how well orders of examples mix a sorted file, over epochs",
    "memory": "predicted memory against measured memory",
    "company": "trainings that share their cores: two at once, and one beside a busy loop",
    "quality": "time from the command to the mean score of the course's recipe",
    "launches": "kernel launches and waits that one step asks of a GPU, counted without one",
    "kernels": "machine code of the GPU kernels: registers, spills, shared memory; compiled without a GPU",
    "gpu": "every benchmark that needs a GPU, within nine minutes",
}
"""Name -> what the benchmark measures. Each is a module of this package with a `main`, imported on request."""


def main(words: Sequence[str]) -> int:
    """Run the benchmark that the first word names; the rest are its flags. Raises ConfigError for an unknown name."""
    if not words or words[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:8} {measures}" for name, measures in BENCHMARKS.items())
        show(f"usage: ftsys bench NAME [FLAGS]\n\nbenchmarks (NAME --help for flags):\n{lines}")
        return DONE
    if words[0] not in BENCHMARKS:
        raise ConfigError(f"bench {words[0]!r} does not exist. Use one of {sorted(BENCHMARKS)}.")
    with _exit_on_sigterm():
        return int(import_module(f"ftsys.bench.{words[0]}").main(words[1:]))


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that peers are ended and the scratch folder with its models is removed."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
