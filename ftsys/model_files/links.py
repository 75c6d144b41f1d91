"""Refuses links that lead out of a model folder, before its files are copied: the copy would be of any file at all."""

from collections.abc import Iterable
from pathlib import Path

from ftsys.errors import ConfigError


def refuse_links(model: Path, names: Iterable[str]) -> None:
    """Raise ConfigError if a link in the model folder leads out of it, for any of these files.

    A folder of the Hub's cache links to its `blobs`, which is allowed.
    """
    folder = model.resolve()
    roots = [folder, *([folder.parent.parent / "blobs"] if folder.parent.name == "snapshots" else [])]
    for path in (model / name for name in names):
        real = path.resolve()
        if not any(real.is_relative_to(root) for root in roots):
            raise ConfigError(
                f"{str(path)!r} is a link to {str(real)!r}, outside the model folder: put a copy of the file there."
            )
