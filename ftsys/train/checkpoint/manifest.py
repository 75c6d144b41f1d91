"""Reads and writes the manifest that seals a complete checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftsys.errors import CheckpointError
from ftsys.integrity import SealedJson, hashed_file
from ftsys.untrusted import file_bytes

MANIFEST = "manifest.json"
FORMAT = 1
_SEALED = SealedJson("checksum", order="all_sorted", indent=1, hashed_separators=(", ", ": "))


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of a folder whose files are complete; `facts["files"]` has an entry for each, by name."""
    with hashed_file(folder / MANIFEST) as file:
        file.write(_SEALED.seal({"format": FORMAT, **facts}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a checkpoint folder.

    Raises CheckpointError when it is missing, differs in any byte from what was written, or is of a newer format.
    """
    path = folder / MANIFEST
    try:
        manifest, intact = _SEALED.parse(file_bytes(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: {str(folder)!r} is not a complete checkpoint") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not intact:
        raise CheckpointError(f"{path} is damaged: it does not match its own checksum")
    found = manifest.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise CheckpointError(f"{path} has format {found!r}, this version reads up to {FORMAT}: use the newer ftsys")
    return manifest
