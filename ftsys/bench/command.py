"""`ftsys bench NAME`: one benchmark, with its peers in the same run."""

from collections.abc import Callable, Sequence

from ftsys.bench import data, memory
from ftsys.errors import DONE, ConfigError

BENCHMARKS: dict[str, Callable[[Sequence[str]], int]] = {"data": data.main, "memory": memory.main}


def main(words: Sequence[str]) -> int:
    """Run the benchmark that the first word names; the rest are its own flags. Raises ConfigError for another name."""
    if not words or words[0] in ("-h", "--help"):
        print(
            f"usage: ftsys bench NAME [FLAGS]\n\nbenchmarks: {', '.join(sorted(BENCHMARKS))}; NAME --help for its flags"
        )
        return DONE
    if words[0] not in BENCHMARKS:
        raise ConfigError(f"bench {words[0]!r} does not exist. Use one of {sorted(BENCHMARKS)}.")
    return BENCHMARKS[words[0]](words[1:])
