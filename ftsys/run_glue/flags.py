"""Reading the example script's flags: words or one JSON file -> the flags that were given, each with its value."""

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

Flags = dict[str, Any]


def _flag(default: Any, help_text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclasses.dataclass
class ModelFlags:
    """What the script takes about the model."""

    model_name_or_path: str | None = _flag(None, "A Hub name, a folder, or 'bundled'.")
    config_name: str | None = _flag(None, "Only the model's own.")
    tokenizer_name: str | None = _flag(None, "Only the model's own.")
    cache_dir: str | None = _flag(None, "Not honoured: set HF_HUB_CACHE.")
    use_fast_tokenizer: bool = _flag(True, "Only True: the tokenizers library is the only one.")
    model_revision: str = _flag("main", "Only main: name the folder of another revision.")
    token: str | None = _flag(None, "Not honoured: set HF_TOKEN.")
    trust_remote_code: bool = _flag(False, "Only False: no code of a model is run.")
    ignore_mismatched_sizes: bool = _flag(False, "A head of another size is always made anew.")


@dataclasses.dataclass
class DataFlags:
    """What the script takes about the data, and `glue_dir`, which is this project's own."""

    task_name: str | None = _flag(None, "A GLUE task.")
    glue_dir: str | None = _flag(None, "A folder of GLUE's own TSV files, instead of the Hub.")
    dataset_name: str | None = _flag(None, "A data set of the Hub, or a folder in its form.")
    dataset_config_name: str | None = _flag(None, "Its configuration.")
    train_file: str | None = _flag(None, "A CSV, TSV, JSON lines or Parquet file.")
    validation_file: str | None = _flag(None, "The same.")
    test_file: str | None = _flag(None, "The same.")
    max_seq_length: int = _flag(128, "Tokens of an example at most.")
    overwrite_cache: bool = _flag(False, "Without effect: a store belongs to its text.")
    pad_to_max_length: bool = _flag(True, "Without effect: no padding is computed.")
    max_train_samples: int | None = _flag(None, "Use the first rows only.")
    max_eval_samples: int | None = _flag(None, "The same for evaluation.")
    max_predict_samples: int | None = _flag(None, "The same for prediction.")


DEFAULTS: Flags = {each.name: each.default for kind in (ModelFlags, DataFlags) for each in dataclasses.fields(kind)}


class _Refused(Exception):
    """What argparse has to say against the words."""


def read_flags(words: Sequence[str]) -> tuple[Flags, list[str]]:
    """The flags that were given, by today's names, with values as transformers types them; and what is to be told.

    One word that ends in .json is the file that `HfArgumentParser` reads too. A name of transformers 4 is put into
    today's, which is told. Imports transformers. Raises ConfigError for a flag that nobody knows, with the nearest, and
    for a value that does not fit.
    """
    if len(words) == 1 and words[0].endswith(".json"):
        words = _words_of(Path(words[0]))
    parser, known = _parser()
    try:
        given, others = parser.parse_known_args(list(words))
    except _Refused as error:
        raise ConfigError(f"{str(error).rstrip('.')}. `ftsys run-glue --help` tells what each flag takes.") from None
    ConfigError.raise_if(_unknown(word, known) for word in others)
    flags = {name: _plain(name, value) for name, value in vars(given).items() if name not in _LAUNCHERS}
    return _todays(flags)


_LAUNCHERS = ("local_rank",)
"""What launchers write: it says what the environment says already."""


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """A parser that tells only what was given, and the flags it knows."""
    from transformers import HfArgumentParser

    from ftsys.train.trainer.arguments import TrainingArguments
    from ftsys.train.trainer.legacy_names import OLD_ARGUMENTS

    class Parser(HfArgumentParser):
        def error(self, message: str) -> Any:
            raise _Refused(message)

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
            action.nargs = "+"  # transformers itself takes one word, or a list from Python
    return parser, [name for action in parser._actions for name in action.option_strings]


def _spellings(name: str) -> list[str]:
    return sorted({f"--{name}", f"--{name.replace('_', '-')}"})


def _value(text: str) -> Any:
    """A number, True or False where the text is one; an old flag's type nobody knows any more."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _unknown(word: str, known: Sequence[str]) -> str:
    if not word.startswith("--"):
        return f"{word!r} belongs to no flag: each is written --NAME VALUE, or one JSON file is given and nothing else."
    name = word.partition("=")[0]
    near = nearest(name, known)
    return f"{name!r} is no flag of run-glue: {f'did you mean {near}' if near else 'leave it out'}."


def _words_of(path: Path) -> list[str]:
    """A JSON file's keys and values as words. Raises ConfigError for one that holds no object."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read ({error.strerror}): give the path of a JSON file.") from error
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} is no JSON ({error}): correct it.") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{str(path)!r} holds {type(tree).__name__}, not an object: write {{FLAG: VALUE, ...}}.")
    words: list[str] = []
    for name, value in tree.items():
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words.append(f"--{name}={json.dumps(value) if isinstance(value, Mapping) else value}")
    return words


def _plain(name: str, value: Any) -> Any:
    """A value as TOML could hold it: no Enum, and what is written as a JSON object as one."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ConfigError(f"--{name} {value!r} is no JSON ({error}): correct it.") from error
    return value


def _todays(flags: Flags) -> tuple[Flags, list[str]]:
    """The same under today's names, but for three flags that are read here; and what became of the old names."""
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
