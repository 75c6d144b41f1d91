"""The names that transformers' model modules define, kept between processes.

Importing transformers reads every file of every model (some 2,000), twice, to find them: 0.6 s of every start.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ftsys.cache import cache_folder
from ftsys.errors import StorageError
from ftsys.files import atomic_write_json

Structure = dict[frozenset[str], dict[str, set[str]]]
"""For each set of packages that are needed: a module's name and the names that it defines."""
Scan = Callable[..., Structure]
"""transformers' `define_import_structure(module_path, prefix=None)`."""


def names_from_cache(scan: Scan) -> Scan:
    """`scan`, which reads the folder of all models only if a model in it has been added, removed or replaced."""

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
    """The import structure of a `models` folder, from the cache if no folder in it has changed.

    An edit of one file in place is not seen: what defines a model's names comes and goes with releases.
    """
    with os.scandir(models) as entries:
        state = sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries if entry.name != "__pycache__")
    key = hashlib.sha256(repr((str(models), state)).encode()).hexdigest()[:24]
    kept = cache_folder() / "transformers-names" / f"{key}.json"
    with suppress(OSError, ValueError, AttributeError, TypeError):  # not there, or not what was written: scan again
        rows = json.loads(kept.read_text(encoding="utf-8"))
        return {frozenset(needs): {module: set(names) for module, names in of.items()} for needs, of in rows}
    found = scan(models)
    with suppress(StorageError):  # no room for a cache: the next start scans again
        atomic_write_json(kept, [(sorted(needs), of) for needs, of in found.items()])
    return found
