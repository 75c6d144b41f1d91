"""Writes the reference page of the run file from the fields of `ftsys.config.schema` and the text under each."""

import ast
import inspect
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pydantic.fields import FieldInfo

from ftsys.config import known_keys, schema
from ftsys.config.fields import Write
from ftsys.config.schema import RunTree
from ftsys.config.trainer_fields import OWNED_TRAINER_FIELDS, REFUSED_TRAINER_FIELDS
from ftsys.config.trainer_known import HONOURED_TRAINER_FIELDS
from tools.docs.markdown import GENERATED, sentence

HEAD = f"""{GENERATED}
# The run file

A run file is TOML. Every key has a default, except where this page says otherwise. A value comes from the first of
these places that names it:

1. the command line: `--train.epochs 5`,
2. the run file,
3. the [recipe](../how-to/recipes.md), if one is named,
4. the default on this page.

`ftsys config RUN.toml` prints every key with its value and the place that it came from, and starts nothing.

Keys are read strictly: a key that does not exist is an error that names the nearest known key. All mistakes of a file
are reported together. No text is turned into a number, and no number into a text. Relative paths start at the folder in
which the command is started, and `~` is your home folder. Environment variables in a value are not expanded.

Two pairs of keys say the same thing in two ways: `batch.global_size` or `batch.global_tokens`, and `train.epochs` or
`train.max_steps`. Give one key of a pair; the other one has no value then.
"""


def run_file_page() -> str:
    """Return the page: one heading for each section of the file, one for each key."""
    texts, pieces, section = field_texts(), [HEAD], ""
    for key, field in known_keys().items():
        if (found := key.partition(".")[0]) != section:
            section = found
            pieces.append(_section_head(section, is_table="." in key))
        pieces.append(_entry(key, field, texts[key]))
        if key == "trainer":
            pieces += _trainer_tables()
    return "\n".join(pieces)


def _trainer_tables() -> Iterator[str]:
    """Yield a table of the fields that [trainer] passes on, and one of the others with the reason."""
    yield "These fields are passed on, and tried on a small model before a run starts:\n"
    yield "| Passed on | Acts on |\n| --- | --- |"
    yield from (f"| `{name}` | {text} |" for name, text in sorted(HONOURED_TRAINER_FIELDS.items()))
    yield "\nThese are refused, since ftsys decides otherwise:\n"
    yield "| Refused | Because |\n| --- | --- |"
    others = {name: f"`{key}` decides it" for name, key in OWNED_TRAINER_FIELDS.items()} | REFUSED_TRAINER_FIELDS
    yield from (f"| `{name}` | {text} |" for name, text in sorted(others.items()))
    yield ""


def field_texts() -> dict[str, str]:
    """Return each key of the run file with the docstring under its field, read from the schema's source.

    They are not kept at run time: that would double the start of every command.
    """
    tree = ast.parse(inspect.getsource(schema))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    texts = {}
    for name, field in RunTree.model_fields.items():
        inner = classes.get(getattr(field.annotation, "__name__", ""))
        found = (
            _texts_of(inner)
            if inner
            else ((name, text) for each, text in _texts_of(classes["RunTree"]) if each == name)
        )
        texts.update({f"{name}.{key}" if inner else key: text for key, text in found})
    return texts


def _texts_of(section: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(section.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            yield field.target.id, str(ast.literal_eval(below.value))


def _section_head(section: str, is_table: bool) -> str:
    field = RunTree.model_fields[section]
    says = inspect.getdoc(field.annotation) if is_table else None
    return f"## `[{section}]` {{ #{section} }}\n\n{sentence(says)}\n" if says else ""


def _entry(key: str, field: FieldInfo, text: str) -> str:
    level = "###" if "." in key else "##"
    write = next(item.text for item in field.metadata if isinstance(item, Write))
    return f"{level} `{key}` {{ #{key} }}\n\n{sentence(text)}\n\nWrite: {write}. Default: {_default(field, write)}.\n"


def _default(field: FieldInfo, write: str) -> str:
    value: Any = field.default
    if value is None:
        return "no value"
    if value == "" and "not empty" in write:
        return "none, it has to be given"
    return f"`{json.dumps(value)}`" if value not in ("", (), {}) else "empty"
