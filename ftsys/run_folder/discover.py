"""Finds run folders below a folder, such as those of a table: TABLE_DIR/MODEL/TASK/seed-1."""

import re
from collections import deque
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
    searched, nor are folders that cannot be read. Each run is there once, where possible by a name without links.
    """
    found: dict[tuple[int, int], Path] = {}
    # The levels that were searched below each folder: with a few links to "." there are millions of names.
    searched: dict[tuple[int, int], int] = {}
    folders, links = deque([(path, deepest)]), deque[tuple[Path, int]]()
    while folders or links:
        folder, levels = (folders or links).popleft()
        try:
            place = (status := folder.stat()).st_dev, status.st_ino
            if searched.get(place, -1) >= levels:
                continue
            searched[place] = levels
            if is_run_folder(folder):
                found.setdefault(place, folder)
                continue
            below = [one for one in folder.iterdir() if _is_searched(one)] if levels and folder.is_dir() else []
        except OSError:
            continue
        for one in below:
            (links if one.is_symlink() else folders).append((one, levels - 1))
    return sorted(found.values(), key=lambda folder: [natural_order(part) for part in _steps(path, folder)])


def _is_searched(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_dir()


def _steps(path: Path, folder: Path) -> list[Path]:
    """Return the names of the folders on the way from `path` down to `folder`."""
    return [Path(name) for name in folder.relative_to(path).parts]


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
