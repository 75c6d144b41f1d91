"""Finds run folders below a folder, such as those of a table: TABLE_DIR/MODEL/TASK/seed-1."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ftsys.run_folder.layout import ATTEMPTS, RESULTS, STATUS

DEEPEST = 4
"""Levels of folders that are searched below the given one."""

_DIGITS = re.compile(r"(\d+)")


def is_run_folder(folder: Path) -> bool:
    """Return True if a run has begun in the folder: it holds results, a status or the record of an attempt."""
    return any((folder / name).is_file() for name in (RESULTS, STATUS)) or any((folder / ATTEMPTS).glob("*.json"))


def find_run_folders(path: Path, deepest: int = DEEPEST) -> list[Path]:
    """Return `path` if it is a run folder, else the run folders below it, at most `deepest` levels down.

    They are sorted by name, with seed-2 before seed-10. Folders within a run folder and hidden folders are not
    searched, nor are folders that cannot be read.
    """
    try:
        if is_run_folder(path):
            return [path]
        if deepest == 0 or not path.is_dir():
            return []
        below = [folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    except OSError:
        return []
    return [found for folder in sorted(below, key=natural_order) for found in find_run_folders(folder, deepest - 1)]


def each_once(found: Mapping[Path, Sequence[Path]]) -> dict[Path, list[Path]]:
    """Return the run folders by the path that they were found below, each run once, also where links lead to it twice.

    It keeps a run's first name, but one without a link below the given path before all with one.
    """
    named = [(path, folder) for path, folders in found.items() for folder in folders]
    chosen: dict[Path, tuple[Path, Path]] = {}
    for path, folder in sorted(named, key=lambda names: _has_link(*names)):
        chosen.setdefault(folder.resolve(), (path, folder))
    return {
        path: [folder for folder in folders if chosen[folder.resolve()] == (path, folder)]
        for path, folders in found.items()
    }


def _has_link(path: Path, folder: Path) -> bool:
    return path.resolve() / folder.relative_to(path) != folder.resolve()


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts names with numbers by the value of the numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(path.name)]
