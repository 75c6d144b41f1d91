"""Separates overrides from a command's own arguments, without importing the code that reads run files."""

from collections.abc import Sequence

_WITHOUT_SECTION = ("--output_dir", "--recipe")


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into (the command's own arguments, overrides); argparse gets only the first part.

    An override is `--output_dir`, `--recipe` or any option with a dot in its name, together with its value.
    """
    own: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        key, equals, _ = argument.partition("=")
        if not (key.startswith("--") and ("." in key or key in _WITHOUT_SECTION)):
            own.append(argument)
            continue
        overrides.append(argument)
        if not equals and rest and not rest[0].startswith("--"):
            overrides.append(rest.pop(0))
    return own, overrides
