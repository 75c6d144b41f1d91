"""Parses the example script's flags, from the command line or from one JSON file."""

import argparse
import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from ftsys.did_you_mean import nearest
from ftsys.errors import ConfigError
from ftsys.files.untrusted import file_bytes, parse_json

Flags = dict[str, Any]


def _flag(default: Any, help_text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclasses.dataclass
class ModelFlags:
    """Declares the script's flags about the model."""

    model_name_or_path: str | None = _flag(None, "A Hub name, a folder, or 'bundled' (the model in the demo extra).")
    config_name: str | None = _flag(None, "Only the model's own configuration is supported.")
    tokenizer_name: str | None = _flag(None, "Only the model's own tokenizer is supported.")
    cache_dir: str | None = _flag(None, "Not supported: set the environment variable HF_HUB_CACHE.")
    use_fast_tokenizer: bool = _flag(True, "Only True is supported: the tokenizers library is always used.")
    model_revision: str = _flag("main", "Only main is supported: for another revision, give its folder as the model.")
    token: str | None = _flag(None, "Not supported: set the environment variable HF_TOKEN.")
    trust_remote_code: bool = _flag(False, "Whether Python code in the model's own folder may run.")
    head: str = _flag("auto", "A trained head: auto (mapped by the names of its classes), keep (in order) or new.")
    ignore_mismatched_sizes: bool = _flag(False, "No effect: a head of another size is always newly initialized.")


@dataclasses.dataclass
class DataFlags:
    """Declares the script's flags about the data, and `glue_dir`, which is a flag of this project."""

    task_name: str | None = _flag(None, "The name of a GLUE task.")
    glue_dir: str | None = _flag(None, "A folder with GLUE's original TSV files, to use instead of the Hub.")
    dataset_name: str | None = _flag(None, "A data set of the Hub, or a folder in the same form.")
    dataset_config_name: str | None = _flag(None, "The configuration of --dataset_name.")
    train_file: str | None = _flag(None, "The training file: CSV, TSV, JSON or Parquet.")
    validation_file: str | None = _flag(None, "The validation file, in the same formats.")
    test_file: str | None = _flag(None, "The test file, in the same formats.")
    text_column_names: str | None = _flag(None, "The one or two text columns, with a comma between; else inferred.")
    label_column_name: str | None = _flag(None, "The label column; else 'label'.")
    do_regression: bool | None = _flag(None, "True: labels are numbers to predict; False: classes; else inferred.")
    quoting: str = _flag("auto", "Quoting of CSV and TSV files: csv, none, or auto (see data.quoting).")
    max_seq_length: int = _flag(128, "The maximum number of tokens of an example; longer ones are truncated.")
    overwrite_cache: bool = _flag(False, "No effect: a store is identified by its text and is never stale.")
    pad_to_max_length: bool = _flag(True, "No effect: batches are packed, without padding.")
    max_train_samples: int | None = _flag(None, "Use only this many rows for training, the first ones.")
    max_eval_samples: int | None = _flag(None, "Use only this many rows for evaluation.")
    max_predict_samples: int | None = _flag(None, "Use only this many rows for prediction.")


DEFAULTS: Flags = {each.name: each.default for kind in (ModelFlags, DataFlags) for each in dataclasses.fields(kind)}


class _ParseError(Exception):
    """Carries argparse's error message."""


def read_flags(arguments: Sequence[str]) -> tuple[Flags, list[str]]:
    """Parse flags; returns those that were given, by their names in transformers 5, and notes for the user.

    A single argument that ends in .json is a file with the flags, as for `HfArgumentParser`. Names of transformers 4
    are replaced by the current ones, with a note. Imports transformers. Raises ConfigError for an unknown flag, with
    the most similar known one, and for a value of the wrong type.
    """
    if len(arguments) == 1 and arguments[0].endswith(".json"):
        arguments = _arguments_from_json(Path(arguments[0]))
    parser, known = _parser()
    try:
        given, others = parser.parse_known_args(list(arguments))
    except _ParseError as error:
        raise ConfigError(
            f"{str(error).rstrip('.')}. `ftsys run-glue --help` lists the flags and their values."
        ) from None
    ConfigError.raise_if(_unknown(argument, known) for argument in others)
    flags = {name: _plain(name, value) for name, value in vars(given).items() if name not in _LAUNCHERS}
    return _with_current_names(flags)


_LAUNCHERS = ("local_rank",)
"""Flags that launchers add; the environment variable LOCAL_RANK has the same value."""


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """Build a parser that returns only the flags that were given; returns it with all flags that it knows."""
    from transformers import HfArgumentParser

    from ftsys.train.trainer.arguments import TrainingArguments
    from ftsys.train.trainer.legacy_names import OLD_ARGUMENTS

    class Parser(HfArgumentParser):
        def error(self, message: str) -> Any:
            raise _ParseError(message)

    kinds = [ModelFlags, DataFlags, TrainingArguments]
    usage = "ftsys run-glue --FLAG VALUE ... | ftsys run-glue FLAGS.json"
    parser = Parser(kinds, usage=usage, allow_abbrev=False, formatter_class=argparse.HelpFormatter)
    for name in (*OLD_ARGUMENTS, "overwrite", "local_rank"):
        if f"--{name}" not in parser._option_string_actions:
            old = OLD_ARGUMENTS[name].advice if name in OLD_ARGUMENTS else argparse.SUPPRESS
            parser.add_argument(*_spellings(name), nargs="?", const=True, type=_value, help=old)
    for action in parser._actions:
        action.required = False
        if action.dest != "help":
            action.default = argparse.SUPPRESS
        if action.dest == "report_to":
            action.nargs = "+"  # transformers itself accepts one value here, or a list from Python
    return parser, [name for action in parser._actions for name in action.option_strings]


def _spellings(name: str) -> list[str]:
    return sorted({f"--{name}", f"--{name.replace('_', '-')}"})


def _value(text: str) -> Any:
    """Convert text to a number, True, False or None if possible: the types of old flags are not recorded."""
    constants = {"true": True, "false": False, "none": None}
    if text.lower() in constants:
        return constants[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _unknown(argument: str, known: Sequence[str]) -> str:
    if not argument.startswith("--"):
        return (
            f"{argument!r} belongs to no flag: write each flag as --NAME VALUE, or give one JSON file and nothing else."
        )
    name = argument.partition("=")[0]
    near = nearest(name, known)
    return f"{name!r} is not a flag of run-glue: {f'did you mean {near}' if near else 'leave it out'}."


def _arguments_from_json(path: Path) -> list[str]:
    """Read a JSON file's keys and values as command-line arguments. Raises ConfigError if it holds no object."""
    try:
        tree = parse_json(file_bytes(path))
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read ({error.strerror}): give the path of a JSON file.") from error
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} is not JSON ({error}): correct it.") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{str(path)!r} holds {type(tree).__name__}, not an object: write {{FLAG: VALUE, ...}}.")
    arguments: list[str] = []
    for name, value in tree.items():
        if isinstance(value, list):
            arguments += [f"--{name}", *map(str, value)]
        elif value is not None:
            arguments.append(f"--{name}={json.dumps(value) if isinstance(value, Mapping) else value}")
    return arguments


def _plain(name: str, value: Any) -> Any:
    """Convert a value for TOML: an Enum to its value, and text that is a JSON object to a dict."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return parse_json(value)
        except ValueError as error:
            raise ConfigError(f"--{name} {value!r} is not JSON ({error}): correct it.") from error
    return value


def _with_current_names(flags: Flags) -> tuple[Flags, list[str]]:
    """Replace names of transformers 4 by the current ones; returns the flags and a note for each replaced name.

    Three old flags are kept, because `translate` reads them.
    """
    from ftsys.train.trainer.legacy_names import OLD_ARGUMENTS, todays

    kept = {name: flags[name] for name in ("overwrite_output_dir", "overwrite", "logging_dir") if name in flags}
    others = {name: value for name, value in flags.items() if name not in kept}
    known = frozenset(name for name in others if name not in OLD_ARGUMENTS)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            flags = kept | todays(others, OLD_ARGUMENTS, known, "run-glue", stacklevel=3)
        return flags, [str(warning.message) for warning in told]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{error}.") from error
