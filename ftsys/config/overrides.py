"""A command line's words, told apart without anything that reads a run file."""

from collections.abc import Sequence


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(a command's own words, overrides) of a command line, for argparse to see only the first.

    An override is `--output_dir` or any option with a dot in its name, with its value.
    """
    own: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, _ = word.partition("=")
        if not (key.startswith("--") and ("." in key or key == "--output_dir")):
            own.append(word)
            continue
        overrides.append(word)
        if not equals and rest and not rest[0].startswith("--"):
            overrides.append(rest.pop(0))
    return own, overrides
