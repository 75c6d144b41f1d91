"""Tells which files of the checkout an installed ftsys needs, and which of them an archive lacks."""

from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("ftsys", "launcher")
SHARED = ("configs/runs", "configs/recipes", "slurm")
"""Folders that an installed ftsys finds in share/ftsys (see `ftsys.shipped`)."""
_MADE = {"__pycache__"}


def needed(root: Path) -> set[str]:
    """Return the paths, relative to `root`, of all files of the packages and of the shared folders."""
    found = (path for folder in (*PACKAGES, *SHARED) for path in (root / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(root)) for path in found if not _MADE & set(path.parts)}


def missing(root: Path, archived: Iterable[str]) -> list[str]:
    """Return the needed files that an archive lacks. `archived` are its paths, with whatever folders above them."""
    ends = {name[at:] for name in archived for at in (0, *(place + 1 for place, c in enumerate(name) if c == "/"))}
    return sorted(needed(root) - ends)
