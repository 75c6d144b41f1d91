"""Reads OSV's database of advisories from a local zip file: one JSON file for each, in the OSV schema 1.x."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


def advisories_on(pinned: Mapping[str, str], database: Path) -> Iterator[str]:
    """Yield a line for each advisory that a pinned version is affected by, sorted; withdrawn ones are left out.

    Raises OSError and ValueError for a file that is no such database.
    """
    found = set()
    try:
        with zipfile.ZipFile(database) as archive:
            for name in archive.namelist():
                if name.endswith(".json"):
                    found |= set(_lines(json.loads(archive.read(name)), pinned))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{database}: is no zip file ({error})") from error
    yield from sorted(found)


def _lines(advisory: Mapping[str, Any], pinned: Mapping[str, str]) -> Iterator[str]:
    if advisory.get("withdrawn"):
        return
    for affected in advisory.get("affected", []):
        package = affected.get("package", {})
        name = canonicalize_name(package.get("name", ""))
        version = pinned.get(name) if package.get("ecosystem") == "PyPI" else None
        if version is not None and is_affected(version, affected):
            also = "".join(f", {alias}" for alias in sorted(advisory.get("aliases", [])))
            yield f"{name} {version}: {advisory['id']}{also}: {advisory.get('summary', 'no summary')}"


def is_affected(version: str, affected: Mapping[str, Any]) -> bool:
    """Return True if an advisory's entry names the version, or one of its ranges contains it.

    A range is a list of events in order: introduced, then fixed (the first sound version) or last_affected.
    """
    if version in affected.get("versions", []):
        return True
    ranges = [each["events"] for each in affected.get("ranges", []) if each.get("type") == "ECOSYSTEM"]
    return any(_in_range(Version(version), events) for events in ranges)


def _in_range(version: Version, events: list[Mapping[str, str]]) -> bool:
    inside = False
    for event in events:
        ((kind, text),) = event.items()
        if kind == "introduced":
            inside = inside or _reaches(version, text, otherwise=True)
        elif kind == "fixed":
            inside = inside and not _reaches(version, text, otherwise=False)
        elif kind == "last_affected":
            inside = inside and (str(version) == text or not _reaches(version, text, otherwise=False))
    return inside


def _reaches(version: Version, edge: str, otherwise: bool) -> bool:
    """Return True if `version` is `edge` or above; `otherwise` for an edge that is no version of PEP 440."""
    try:
        return version >= Version(edge)
    except InvalidVersion:
        return otherwise
