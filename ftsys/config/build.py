"""Builds a RunConfig from a tree of plain values, and reports every mistake in one ConfigError."""

import types
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ftsys.config.checks import cross_mistakes
from ftsys.config.fields import LARGEST_WHOLE, Mistake, Write, told
from ftsys.config.run_config import RunConfig
from ftsys.config.schema import RunTree, Section
from ftsys.did_you_mean import nearest
from ftsys.errors import ConfigError
from ftsys.recipes import with_recipe

SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in RunTree.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}

OF_OTHER_COMMANDS = ("table", "sweep")
"""Sections that `ftsys train` does not read; the commands that they are for check their keys."""


def known_keys() -> dict[str, FieldInfo]:
    """Return the field of every dotted key, in the tree's order; `trainer` is one key."""
    keys: dict[str, FieldInfo] = {}
    for name, field in RunTree.model_fields.items():
        section = SECTIONS.get(name)
        keys.update(
            {f"{name}.{key}": inner for key, inner in section.model_fields.items()} if section else {name: field}
        )
    return keys


def build_run(tree: Mapping[str, Any]) -> RunConfig:
    """Check a tree of plain values, as TOML or JSON give them, and build the frozen run.

    Raises ConfigError with one message for each mistake: unknown keys, wrong types and conflicts between fields.
    """
    mistakes: list[Mistake] = []
    try:
        tree = with_recipe(tree)
    except ConfigError as error:
        mistakes.append(Mistake(str(error), ("recipe",)))
    mistakes += _field_mistakes(tree)
    bad = {key for mistake in mistakes for key in mistake.keys}
    # Bad fields get their defaults, so that one start also shows the mistakes between the other fields.
    rest = RunTree.model_validate(_without(tree, bad))
    mistakes += [mistake for mistake in cross_mistakes(rest) if not bad.intersection(_and_sections(mistake.keys))]
    ConfigError.raise_if(mistake.text for mistake in mistakes)
    return RunConfig.model_validate(tree)


def _and_sections(keys: tuple[str, ...]) -> set[str]:
    return {*keys, *(key.partition(".")[0] for key in keys)}


def _without(tree: Mapping[str, Any], bad: set[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in tree.items():
        if name in bad or name not in RunTree.model_fields:
            continue
        inside = name in SECTIONS and isinstance(value, Mapping)
        kept[name] = {key: inner for key, inner in value.items() if f"{name}.{key}" not in bad} if inside else value
    return kept


def _field_mistakes(tree: Mapping[str, Any]) -> Iterator[Mistake]:
    try:
        RunTree.model_validate(tree)
    except ValidationError as error:
        seen: set[str] = set()
        for detail in error.errors(include_url=False, include_context=False):
            parts = [str(part) for part in detail["loc"][: 2 if detail["loc"][0] in SECTIONS else 1]]
            key = ".".join(parts)
            if key in seen:  # a union reports one error for each of its members
                continue
            seen.add(key)
            if "." in parts[-1]:
                where = "".join(f" in [{section}]" for section in parts[:-1])
                text = f"{parts[-1]!r} in quotes is one key{where}, not a section and its key: write it without quotes."
                yield Mistake(text, (key,))
            else:
                unknown = detail["type"] == "extra_forbidden" and len(detail["loc"]) == len(parts)
                yield Mistake(_message(key, _value_at(tree, parts), unknown), (key,))


def _value_at(tree: Any, parts: list[str]) -> Any:
    for part in parts:
        tree = tree[part]
    return tree


def _message(key: str, value: Any, unknown: bool) -> str:
    if unknown:
        return unknown_key_message(key, value)
    if key in SECTIONS:
        return f"{told(key, value)} is not a table: write its keys under [{key}]."
    what = _what_to_write(known_keys()[key])
    return f"{told(key, value)} cannot be used: write {what}{_hint(value, what)}."


def _hint(value: Any, what: str) -> str:
    if isinstance(value, int) and value > LARGEST_WHOLE and "above 0" in what and "at most" not in what:
        return f", {LARGEST_WHOLE:,} at most"
    looks_plain = isinstance(value, str) and (value in ("true", "false") or value.lstrip("+-").isdigit())
    return " (without quotes: it is not text)" if looks_plain else ""


def _what_to_write(field: FieldInfo) -> str:
    return next(item.text for item in reversed(field.metadata) if isinstance(item, Write))


def unknown_key_message(key: str, value: Any) -> str:
    """Return the message about an unknown key, with the most similar known key."""
    found = _nearest_key(key)
    if isinstance(value, Mapping) and "." not in key:
        names = (*SECTIONS, "trainer", *OF_OTHER_COMMANDS)
        known = ", ".join(f"[{name}]" for name in names)
        near = nearest(key, names)
        return f"[{key}] is not a known section: {f'did you mean [{near}]?' if near else f'known ones are {known}.'}"
    if found:
        return f"{told(key, value)} is not a known key: did you mean {found}?"
    section = key.rpartition(".")[0]
    siblings = [candidate for candidate in known_keys() if section and candidate.startswith(f"{section}.")]
    where = ", ".join(siblings or RunTree.model_fields)
    known = f"known ones are {where}; other TrainingArguments go under [trainer]."
    return f"{told(key, value)} is not a known key: {known}"


def _nearest_key(key: str) -> str | None:
    """Return the known key with the most similar name, from the same section if possible, else from any section."""
    section, _, name = key.rpartition(".")
    by_name = {candidate.rpartition(".")[2]: candidate for candidate in (*SECTIONS, *reversed(known_keys()))}
    if name in by_name:
        return by_name[name]
    siblings = SECTIONS[section].model_fields if section in SECTIONS else RunTree.model_fields
    sibling = nearest(name, siblings)
    if sibling:
        return f"{section}.{sibling}" if section in SECTIONS else sibling
    found = nearest(name, by_name)
    return by_name[found] if found else None


def accepts_only_text(field: FieldInfo) -> bool:
    """Return True if a field accepts text only, so that the value of `--model.name 123` is taken as text."""
    return set(_plain_types(field.annotation)) == {str}


def _plain_types(annotation: Any) -> Iterator[type]:
    origin = get_origin(annotation)
    if origin is Union or origin is types.UnionType:
        for member in get_args(annotation):
            yield from _plain_types(member)
    elif hasattr(annotation, "__metadata__"):
        yield from _plain_types(annotation.__origin__)
    elif origin is not None and str(origin) == "typing.Literal":
        yield from (type(value) for value in get_args(annotation))
    else:
        yield origin or annotation


def plain_tree(run: BaseModel) -> dict[str, Any]:
    """Convert the run to plain TOML values: sections to dicts, tuples to lists.

    Keys that are None are left out, and so are empty sections of other commands.
    """
    tree = run.model_dump(mode="json", exclude_none=True)
    return {name: value for name, value in tree.items() if value or name not in OF_OTHER_COMMANDS}
