"""Writes the reference page of `ftsys run-glue` from its tables of flags."""

from dataclasses import Field, fields
from typing import Any

from ftsys.run_glue.flag_table import ALLOWED_VALUES, RUN_FILE_KEYS, WITHOUT_EFFECT
from ftsys.run_glue.flags import DataFlags, ModelFlags
from tools.docs.markdown import GENERATED, options_table, sentence

HEAD = f"""{GENERATED}
# Flags of `run_glue.py`

`ftsys run-glue` takes the flags of transformers' example script `run_glue.py`, or one JSON file of them. A flag that is
in none of these tables is an argument of `transformers.TrainingArguments` and means what it means there. A flag that
transformers 5 dropped is taken with a note that gives the new name. A flag or a value that cannot be honoured is
refused by name.
"""

KEYS = "\n## Flags that are keys of the run file\n\n"
SCRIPT = "\n## Model and data\n\n"
IGNORED = "\n## Flags without effect\n\nThey are taken, and a note gives the reason. They change no result.\n\n"
LIMITED = "\n## Flags that can have some values only\n\n"


def run_glue_flags_page() -> str:
    """Return the page: one table for each kind of flag."""
    script: list[Field[Any]] = [*fields(ModelFlags), *fields(DataFlags)]
    own = [(_flag(each.name), sentence(each.metadata["help"])) for each in script]
    keys = [(_flag(flag), f"[`{key}`](run-file.md#{key})") for flag, key in RUN_FILE_KEYS.items()]
    ignored = [(_flag(flag), sentence(reason)) for flag, reason in WITHOUT_EFFECT.items()]
    limited = [
        (_flag(flag), ", ".join(f"`{value!r}`" for value in values), sentence(advice))
        for flag, (values, advice) in ALLOWED_VALUES.items()
    ]
    return (
        HEAD
        + SCRIPT
        + options_table(("Flag", "Meaning"), own)
        + KEYS
        + options_table(("Flag", "Key of the run file"), keys)
        + IGNORED
        + options_table(("Flag", "Reason"), ignored)
        + LIMITED
        + options_table(("Flag", "Values", "Reason, or what to do instead"), limited)
    )


def _flag(name: str) -> str:
    return f"`--{name}`"
