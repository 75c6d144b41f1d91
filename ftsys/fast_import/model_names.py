"""Caches the names that transformers' model modules define, between processes.

To find these names, importing transformers reads the about 2,000 files of all models, twice: 0.5 s of every start.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ftsys.cache import executable_cache
from ftsys.errors import ConfigError, StorageError
from ftsys.files.atomic import atomic_write_json

Structure = dict[frozenset[str], dict[str, set[str]]]
"""Set of required packages -> module name -> names that the module defines."""
_Rows = list[tuple[list[str], dict[str, list[str]]]]
"""A structure as its file has it."""
Scan = Callable[..., Structure]
"""Type of transformers' `define_import_structure(module_path, prefix=None)`."""


def names_from_cache(scan: Scan) -> Scan:
    """Return a function like `scan` that reads the `models` folder only if a model was added, removed or replaced."""

    def cached(module_path: str | Path, prefix: str | None = None) -> Structure:
        folder = Path(module_path)
        folder = folder.parent if folder.name == "__init__.py" else folder
        if folder.name != "models":
            return scan(module_path, prefix)
        start = f"{prefix}." if prefix else ""
        found = _names_of(folder, scan)
        return {needs: {start + module: names for module, names in of.items()} for needs, of in found.items()}

    return cached


def _names_of(models: Path, scan: Scan) -> Structure:
    """Return the import structure of a `models` folder, from the cache if no folder in it has changed.

    An edit of a file in place is not detected: a model's names change with releases only. The list decides what can be
    imported, so it lies where nobody else may write, as files that are executed do.
    """
    kept = _place_of_list(models)
    if kept is None:
        return scan(models)
    return _read(kept) or _scanned(models, scan, kept)


def _place_of_list(models: Path) -> Path | None:
    """Return the path of the folder's list in the cache; None where others could write it, or nothing can be made."""
    with os.scandir(models) as entries:
        state = sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries if entry.name != "__pycache__")
    key = hashlib.sha256(repr((str(models), state)).encode()).hexdigest()[:24]
    try:
        return executable_cache("transformers-names") / f"{key}.json"
    except (ConfigError, OSError):  # every start scans
        return None


def _read(kept: Path) -> Structure:
    """Return a list of the cache; {} for one that is missing, damaged or empty: it only costs a scan."""
    from ftsys.files.untrusted import (  # imports pydantic, too slow for a command's first import
        file_bytes,
        parse_json,
        typed,
    )

    try:
        rows = typed(_Rows, parse_json(file_bytes(kept)))
    except (OSError, ValueError):
        return {}
    return {frozenset(needs): {module: set(names) for module, names in of.items()} for needs, of in rows}


def _scanned(models: Path, scan: Scan, kept: Path) -> Structure:
    found = scan(models)
    with suppress(StorageError):  # the cache cannot be written: the next start scans again
        atomic_write_json(kept, [(sorted(needs), of) for needs, of in found.items()])
    return found
