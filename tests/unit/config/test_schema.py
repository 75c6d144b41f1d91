"""Tests that every key of the run file has a docstring and tells which values it accepts."""

import ast
import inspect
from itertools import pairwise
from typing import Any

from ftsys.config import known_keys, schema
from ftsys.config.schema import Write


def test_every_field_says_what_it_is_and_what_to_write() -> None:
    keys: dict[str, Any] = known_keys()
    assert len(keys) > 30
    for key, field in keys.items():
        assert any(isinstance(item, Write) for item in field.metadata), key
    # Read from the source, as people do: keeping the texts at run time would double the start of every command.
    tree = ast.parse(inspect.getsource(schema))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    sections = [node for node in classes if node.name == "RunTree" or node.name.endswith("Section")]
    silent = [
        f"{section.name}.{field.target.id}"
        for section in sections
        for field, behind in pairwise([*section.body, ast.Pass()])
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and field.target.id not in ("task", "data", "model", "batch", "train", "lora", "engine", "launch")
        and not (isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant))
    ]
    assert (len(sections), silent) == (10, [])
