"""DeepSpeed's hostfile: a line `name slots=N` for each host. Pure.

Names come from people and end up as arguments of ssh, so only plain host names pass: nothing that a program could take
for an option, and nothing that a shell would read as more than a word.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ftsys.errors import LaunchError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_SLOTS = re.compile(r"slots=([0-9]{1,6})")


@dataclass(frozen=True)
class Host:
    """A machine that ssh reaches under `name`, with room for `slots` ranks."""

    name: str
    slots: int


def is_host_name(text: str) -> bool:
    """Whether the text is a plain host name or an IPv4 address, and neither an option nor a piece of shell."""
    return _NAME.fullmatch(text) is not None


def check_host_name(text: str) -> str:
    """The name itself. Raises LaunchError for anything that is no plain host name."""
    if not is_host_name(text):
        raise LaunchError(_no_name(text))
    return text


def parse_hostfile(text: str, source: str) -> tuple[Host, ...]:
    """The hosts in their order; `source` is what messages call the file. `#` begins a comment, empty lines are skipped.

    Raises LaunchError with every bad line and its number, and for a file that names no host.
    """
    hosts: dict[str, Host] = {}
    mistakes: list[str] = []
    for number, words in _lines(text):
        try:
            host = _host(words)
        except LaunchError as error:
            mistakes.append(f"hostfile {source!r}, line {number}: {error}")
            continue
        if host.name in hosts:
            mistakes.append(f"hostfile {source!r}, line {number}: {host.name!r} is there twice: name each host once.")
        hosts[host.name] = host
    if mistakes:
        raise LaunchError("\n".join(mistakes))
    if not hosts:
        raise LaunchError(f"hostfile {source!r} names no host: write a line such as `node1 slots=8` for each.")
    return tuple(hosts.values())


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """(line number from 1, words) of each line that holds something."""
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.partition("#")[0].split()
        if words:
            yield number, words


def _host(words: list[str]) -> Host:
    slots = _SLOTS.fullmatch(words[1]) if len(words) == 2 else None
    check_host_name(words[0])
    if slots is None or int(slots[1]) < 1:
        raise LaunchError(f"{' '.join(words)!r} is no host: write `{words[0]} slots=N`, N being its ranks, 1 or more.")
    return Host(words[0], int(slots[1]))


def _no_name(text: str) -> str:
    user = " The user's name belongs into ~/.ssh/config." if "@" in text else ""
    return f"{text!r} is no host name: letters, digits, dots, hyphens and underscores, a letter or digit first.{user}"
