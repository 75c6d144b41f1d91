"""Writes a RunConfig as the text of a run file that loads back equal."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ftsys.config.build import plain_tree
from ftsys.config.run_config import RunConfig


def dump_toml(run: RunConfig) -> str:
    """Write the whole tree as a run file that needs no other one: `load_run` reads it back as an equal RunConfig.

    `recipe` is left out: its values are in the tree, and its file may change or be somewhere else.
    """
    return dump_tree({name: value for name, value in plain_tree(run).items() if name != "recipe"})


def dump_tree(tree: Mapping[str, Any]) -> str:
    """Write a tree of plain values as the text of a run file, sections as tables."""
    lines = [f"{_key(name)} = {_value(value)}" for name, value in tree.items() if not isinstance(value, Mapping)]
    for name, section in tree.items():
        if isinstance(section, Mapping):
            lines += ["", f"[{_key(name)}]", *(f"{_key(key)} = {_value(value)}" for key, value in section.items())]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else _text(name)


def _text(value: str) -> str:
    # JSON and TOML have the same escapes, except for DEL, which JSON does not escape and TOML does not accept.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _text(value)
        case Mapping():
            return "{" + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + "}"
        case Sequence():
            return "[" + ", ".join(_value(inner) for inner in value) + "]"
    raise TypeError(f"{value!r} has no form in TOML")
