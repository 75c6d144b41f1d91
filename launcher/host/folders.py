"""Names the working folder as the user knows it."""

from collections.abc import Mapping
from pathlib import Path


def current_folder(environ: Mapping[str, str]) -> Path:
    """Return the working folder by the name that the user's shell has for it: other machines may know no other name."""
    named, found = Path(environ.get("PWD", "")), Path.cwd()
    return named if named.is_absolute() and named.exists() and named.samefile(found) else found
