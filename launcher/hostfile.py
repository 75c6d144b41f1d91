"""Parses DeepSpeed's hostfile: a line `name slots=N` for each host. Pure.

Names come from people and become arguments of ssh. Only plain host names pass: nothing that a program could read as an
option, and nothing that a shell would read as more than one word.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ftsys.errors import LaunchError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_SLOTS = re.compile(r"slots=([0-9]{1,6})")


@dataclass(frozen=True)
class Host:
    """A machine that ssh reaches by `name`, with `slots` ranks at most."""

    name: str
    slots: int


def is_host_name(text: str) -> bool:
    """Return True for a plain host name or IPv4 address, False for anything that could be an option or shell code."""
    return _NAME.fullmatch(text) is not None


def check_host_name(text: str) -> str:
    """Return the name itself. Raises LaunchError if it is not a plain host name."""
    if not is_host_name(text):
        raise LaunchError(_bad_name(text))
    return text


def parse_hostfile(text: str, source: str) -> tuple[Host, ...]:
    """Return the hosts in their order. `#` begins a comment, empty lines are skipped.

    `source`: the file's name for messages. Raises LaunchError with every bad line and its number, and for a file
    without a host.
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
            mistakes.append(f"hostfile {source!r}, line {number}: {host.name!r} is listed twice: list each host once.")
        hosts[host.name] = host
    if mistakes:
        raise LaunchError("\n".join(mistakes))
    if not hosts:
        raise LaunchError(f"hostfile {source!r} names no host: write a line such as `node1 slots=8` for each.")
    return tuple(hosts.values())


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number from 1, words) of each line that is not empty."""
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.partition("#")[0].split()
        if words:
            yield number, words


def _host(words: list[str]) -> Host:
    slots = _SLOTS.fullmatch(words[1]) if len(words) == 2 else None
    check_host_name(words[0])
    if slots is None or int(slots[1]) < 1:
        line = " ".join(words)
        raise LaunchError(f"{line!r} is not a host: write `{words[0]} slots=N`, where N is its ranks, 1 or more.")
    return Host(words[0], int(slots[1]))


def _bad_name(text: str) -> str:
    user = " The user's name belongs into ~/.ssh/config." if "@" in text else ""
    rule = "letters, digits, dots, hyphens and underscores, a letter or digit first."
    return f"{text!r} is not a host name: {rule}{user}"
