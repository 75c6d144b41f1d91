"""Suggests the known name that is most similar to an unknown one, for error messages."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from ftsys.errors import ConfigError


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`, ignoring case; None if no name is similar enough."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean 'mrpc'", or "write one of ..." with all known names if none is similar."""
    known = tuple(known)
    found = nearest(name, known)
    return f"did you mean {found!r}" if found else f"write one of {', '.join(known)}"


def check_command(program: str, arguments: Sequence[str], commands: Iterable[str]) -> None:
    """Raise ConfigError if the first argument is meant to be a command of `program` and is none."""
    commands = tuple(commands)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands:
        advice = did_you_mean(arguments[0], commands)
        raise ConfigError(f"{arguments[0]!r} is not a command of {program}: {advice}. See {program} --help.")


def question(name: str, known: Iterable[str]) -> str:
    """Return the sentence " Did you mean 'mrpc'?", with its leading space; empty if no known name is similar."""
    found = nearest(name, known)
    return f" Did you mean {found!r}?" if found else ""
