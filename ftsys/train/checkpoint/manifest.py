"""Reads and writes the manifest that seals a complete checkpoint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsys.errors import CheckpointError
from ftsys.integrity import hashed_file

if TYPE_CHECKING:
    pass


MANIFEST = "manifest.json"


FORMAT = 1


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of a folder whose files are complete; `facts` ends with "files", an entry by name."""
    with hashed_file(folder / MANIFEST) as file:
        file.write(_sealed({"format": FORMAT, **facts}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder.

    Raises CheckpointError when it is missing, differs in any byte from what was written, or is of a newer format.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        manifest = json.loads(data)
        sealed = _sealed({key: value for key, value in manifest.items() if key != "checksum"})
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: the checkpoint was never completed") from error
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if data != sealed:
        raise CheckpointError(f"{path} is damaged: it does not match its own checksum")
    if manifest["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {manifest['format']}, this version reads up to {FORMAT}: use the newer ftsys"
        )
    return manifest


def _sealed(facts: dict[str, Any]) -> bytes:
    """The only bytes that a manifest of these facts may have; so that a change of white space is a change too."""
    checksum = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**facts, "checksum": checksum}, sort_keys=True, indent=1) + "\n").encode()
