"""Reads and writes the manifest that seals a complete checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from ftsys.errors import CheckpointError
from ftsys.files.integrity import SealedJson, hashed_file
from ftsys.files.untrusted import FileEntries, file_bytes, typed

MANIFEST = "manifest.json"
FORMAT = 1
WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
MODEL = "model.safetensors"
"""The stock name, which may hold the weights in the place of WEIGHTS."""
_SEALED = SealedJson("checksum", order="all_sorted", indent=1, hashed_separators=(", ", ": "))


def part_of_file(name: str) -> re.Pattern[str]:
    """Return the pattern of the ranks' parts of a file, such as "weights-00001-of-00002.safetensors"."""
    stem, dot, ending = name.rpartition(".")
    return re.compile(rf"{re.escape(stem)}-\d+-of-\d+{re.escape(dot + ending)}")


def name_of_part(name: str, part: int, parts: int) -> str:
    """Return the name of part number `part`, from 0, of a file that `parts` ranks wrote."""
    stem, dot, ending = name.rpartition(".")
    return name if parts == 1 else f"{stem}-{part + 1:05d}-of-{parts:05d}{dot}{ending}"


class Facts(TypedDict):
    """The fields of a manifest about the whole checkpoint."""

    step: int
    attempt: int
    identity: str
    files: FileEntries


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


def read_facts(folder: Path) -> Facts:
    """Read what a manifest says about the whole checkpoint.

    Raises CheckpointError, also if it lists no state, weights or optimizer.
    """
    try:
        facts = typed(Facts, read_manifest(folder))
    except ValueError as error:
        raise CheckpointError(f"{folder / MANIFEST} is not a checkpoint's manifest: {error}") from error
    for name in (STATE, OPTIMIZER, *(() if MODEL in facts["files"] else (WEIGHTS,))):
        parts_of(name, facts["files"], folder)
    return facts


def parts_of(name: str, listed: FileEntries, folder: Path) -> list[str]:
    """Return the names under which a manifest lists a file, or all ranks' parts of it. Raises CheckpointError."""
    parts = sorted(part for part in listed if part_of_file(name).fullmatch(part))
    if not parts and name not in listed:
        raise CheckpointError(f"{folder / MANIFEST} does not list {name!r}: it is not a whole checkpoint's manifest")
    if parts and parts != [name_of_part(name, part, len(parts)) for part in range(len(parts))]:
        raise CheckpointError(f"{folder / MANIFEST} does not list all parts of {name!r}, but {', '.join(parts)}")
    return parts or [name]
