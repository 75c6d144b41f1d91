"""Checks the folders that `datasets` is to read, and turns what it raises for a wrong one into one DataError."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from typing_extensions import TypedDict

from ftsys.errors import DataError
from ftsys.files.untrusted import FileName, check_regular, file_bytes, file_text, json_object, parse_yaml, typed

SPLITS, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"
"""Files that `datasets` writes beside the rows."""
INCOMPLETE = ".incomplete"
"""End of the name of a folder that `datasets` is writing, or that it left when it was killed."""
_HEADS = ("README.md", ".huggingface.yaml")
"""Files of a repository that may name its files of data."""
RAISED = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""`datasets` raises these, depending on the file that is wrong."""


@contextmanager
def data_load_errors(what: str, advice: str) -> Iterator[None]:
    """Raise DataError, with the original error as its cause, for data that `datasets` cannot load."""
    try:
        yield
    except _raised() as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(f"{what} ({reason}). {advice}") from error


def _raised() -> tuple[type[Exception], ...]:
    import pyarrow
    import yaml
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError  # of whichever HTTP library this version of huggingface_hub uses

    return (*RAISED, HTTPError, DatasetsError, yaml.YAMLError, pyarrow.ArrowException)


class _DataFile(TypedDict):
    """An entry of state.json: a file of rows."""

    filename: FileName


def check_saved_folder(folder: Path) -> None:
    """Check the names in a folder of `save_to_disk`: `datasets` would map any file. Raises OSError and ValueError."""
    if (folder / SPLITS).is_file():
        for split in typed(list[FileName], json_object(file_bytes(folder / SPLITS)).get("splits")):
            _check_state(folder / split)
    if (folder / STATE).is_file():
        _check_state(folder)


def _check_state(folder: Path) -> None:
    for entry in typed(list[_DataFile], json_object(file_bytes(folder / STATE)).get("_data_files")):
        check_regular(folder / entry["filename"])


def check_mirror(folder: Path) -> None:
    """Check that the files of data that a local mirror's README.md names lie in its folder.

    Raises DataError for a path that leads out of it and for a URL, which `datasets` would read; OSError and ValueError
    for a file that cannot be read.
    """
    for head in (folder / name for name in _HEADS):
        for pattern in _patterns(head) if head.is_file() else ():
            if _leads_out(pattern):
                raise DataError(
                    f"{head}: {pattern[:80]!r} leads out of the folder. Copy the files into it, and name them there."
                )


def _patterns(head: Path) -> Iterator[str]:
    """Yield the patterns of files and folders in the configurations of a README.md or a file of YAML."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    text = file_text(head)
    if head.suffix == ".md":
        found = REGEX_YAML_BLOCK.search(text)
        text = found[2] if found else ""
    settings = parse_yaml(text)
    configs = settings.get("configs") if isinstance(settings, dict) else None
    for config in configs if isinstance(configs, list) else ():
        if isinstance(config, dict):
            yield from _texts([config.get("data_files"), config.get("data_dir")])


def _texts(value: Any) -> Iterator[str]:
    """Yield every text inside lists and dicts, and each of these once: with aliases, YAML can repeat one endlessly."""
    left, seen = [value], set()
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict | list) and id(item) not in seen:
            seen.add(id(item))
            left += item.values() if isinstance(item, dict) else item


def _leads_out(pattern: str) -> bool:
    path = PurePosixPath(pattern)
    return path.is_absolute() or ".." in path.parts or "://" in pattern or "::" in pattern or pattern.startswith("~")
