"""`ftsys bench NAME`: one benchmark, with its peers in the same run."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from ftsys.errors import DONE, ConfigError

BENCHMARKS = {
    "data": "tokenizing, assembling a batch, opening a store",
    "step": "whole optimizer steps",
    "train": "whole trainings with evaluation",
    "eval": "predictions",
    "startup": "from the command to the first optimizer step",
    "save": "checkpoints: what a step waits for, what a save and a resume take",
    "scaling": "several ranks on this machine, and the balance of thousands",
    "memory": "predicted memory against measured memory",
    "gpu": "all that is due on a GPU, within nine minutes",
}
"""Name -> what it measures; each is a module of this package with a `main`, imported when it is asked for."""


def main(words: Sequence[str]) -> int:
    """Run the benchmark that the first word names; the rest are its own flags. Raises ConfigError for another name."""
    if not words or words[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:8} {says}" for name, says in BENCHMARKS.items())
        print(f"usage: ftsys bench NAME [FLAGS]\n\nbenchmarks (NAME --help for flags):\n{lines}")
        return DONE
    if words[0] not in BENCHMARKS:
        raise ConfigError(f"bench {words[0]!r} does not exist. Use one of {sorted(BENCHMARKS)}.")
    with _leaving_tidily():
        return int(import_module(f"ftsys.bench.{words[0]}").main(words[1:]))


@contextmanager
def _leaving_tidily() -> Iterator[None]:
    """TERM ends a benchmark like Ctrl-C: its peers are ended and its scratch folder, a model or more, is removed."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
