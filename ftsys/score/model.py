"""Finds the model that is to score: a run folder, a folder of `from_pretrained`, or a name on the Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsys.config import load_run, resolve_task
from ftsys.data.tokenize.plain_bert import tokenizer_settings
from ftsys.errors import ConfigError
from ftsys.files.paths import expanded, there
from ftsys.model_files.card import read_card
from ftsys.model_files.config import holds_model, model_config
from ftsys.model_files.folder import longest_sequence, resolve_model_folder
from ftsys.run_folder.layout import ATTEMPTS, MODEL, RUN_FILE

UNBOUNDED = 10**9
"""transformers writes larger numbers than this for a tokenizer without a limit."""
DEFAULT_LENGTH = 512
"""Tokens to which rows are truncated where neither the run, the tokenizer nor the model names a limit."""


@dataclass(frozen=True)
class FoundModel:
    """A model's folder, its config.json, and facts of its training: text columns (None: not known) and length.

    `trust_remote_code` says whether code of the folder may run.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    columns: tuple[str, ...] | None
    max_length: int
    trust_remote_code: bool = False


def find_model(name: str, max_length: int | None = None, trust_remote_code: bool = False) -> FoundModel:
    """Find a model by the name that the user gave; `max_length` in tokens replaces the run's or the model's own.

    `trust_remote_code` is the caller's word alone: a run folder cannot trust itself.

    Raises:
        ConfigError: there is no such model, a run folder without a trained one, or a length that it cannot take.
    """
    path = expanded(name)
    run_folder = _run_folder(path) if there(path) else None
    folder = run_folder / MODEL if run_folder is not None else _model_folder(name, path)
    config = model_config(folder)
    columns, length = _of_training(run_folder, folder)
    length = max_length or length or _usual_length(folder, config)
    found = FoundModel(name, folder, config, columns, length, trust_remote_code)
    longest = longest_sequence(config)
    if longest is not None and found.max_length > longest:
        raise ConfigError(
            f"--max-length {found.max_length} is more than the {longest} tokens that model {name!r} can take. "
            f"Write {longest} or less."
        )
    return found


def _run_folder(path: Path) -> Path | None:
    """Return the run folder that `path` is, or whose model it is; None for any other path."""
    if _is_run_folder(path):
        if not holds_model(path / MODEL):
            raise ConfigError(f"run folder {str(path)!r} holds no trained model yet. Let its training finish first.")
        return path
    is_runs_own = path.name == MODEL and (path.parent / RUN_FILE).is_file() and holds_model(path)
    return path.parent if is_runs_own else None


def _is_run_folder(path: Path) -> bool:
    """Return True for a run folder, also where `ftsys run-glue` put the files of a former model beside its own."""
    of_run = any((path / name).is_dir() for name in (MODEL, ATTEMPTS))
    return (path / RUN_FILE).is_file() and (of_run or not holds_model(path))


def _model_folder(name: str, path: Path) -> Path:
    if there(path) and path.is_dir() and not holds_model(path):
        raise ConfigError(
            f"{name!r} holds neither a model (config.json) nor a run ({RUN_FILE}). Name a run folder, a folder that "
            "save_pretrained wrote, or a model of the Hub."
        )
    try:
        return resolve_model_folder(name)
    except ConfigError as error:
        raise ConfigError(*(text.replace("model.name=", "model ") for text in error.messages)) from error


def _of_training(run_folder: Path | None, folder: Path) -> tuple[tuple[str, ...] | None, int | None]:
    """Return the text columns and the truncation of the training: by its run, else by the model's card."""
    if run_folder is not None:
        run = load_run(run_folder / RUN_FILE)
        return resolve_task(run).columns, run.data.max_length
    card = read_card(folder)
    return (None, None) if card is None else (card.columns, card.max_length)


def _usual_length(folder: Path, config: dict[str, Any]) -> int:
    """Return the smaller limit of tokenizer and model, to which transformers truncates as well. Raises ConfigError."""
    try:
        own = tokenizer_settings(folder).get("model_max_length")
    except ValueError as error:
        wrong = f"{folder / 'tokenizer_config.json'}: cannot be used ({error}). Copy or download the model again."
        raise ConfigError(wrong) from error
    known = [int(own)] if isinstance(own, int | float) and 0 < own < UNBOUNDED else []
    longest = longest_sequence(config)
    return min([*known, *([] if longest is None else [longest])], default=DEFAULT_LENGTH)
