"""Writes the reference page of the Python API: one entry for each public name, which mkdocstrings fills in."""

import ast
from collections.abc import Iterator
from pathlib import Path

import ftsys
from tools.docs.markdown import GENERATED, sentence, table

HEAD = f"""{GENERATED}
# Python API

`import ftsys` costs nothing: each of these names is imported when it is first used. Import them from `ftsys` itself,
as in `from ftsys import Trainer`; the modules that define them may change.
"""

OPTIONS = {"RunConfig": "    options:\n      members: false\n"}
NOTES = {"RunConfig": "[Run file](run-file.md) describes the fields.\n"}
"""Name -> what is different about its entry: the sections of a run have a page of their own."""


def api_page() -> str:
    """Return the page. The modules are not imported: most of them load torch."""
    pieces = [HEAD]
    for name, module in ftsys._HOMES.items():
        pieces.append(f"::: {module}.{name}\n{OPTIONS.get(name, '')}")
        if name in NOTES:
            pieces.append(NOTES[name])
        if name == "TrainingArguments":
            pieces.append("### Arguments that ftsys adds\n")
            pieces.append(table(("Argument", "Default", "Meaning"), _arguments(module, name)))
    return "\n".join(pieces)


def _arguments(module: str, name: str) -> Iterator[tuple[str, str, str]]:
    """Yield the arguments that ftsys adds to transformers' own: name, default and help, read from the source."""
    source = Path(ftsys.__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    for each in found.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and isinstance(each.value, ast.Call):
            given = {word.arg: ast.literal_eval(word.value) for word in each.value.keywords}
            yield f"`{each.target.id}`", f"`{given['default']!r}`", sentence(given["metadata"]["help"])
