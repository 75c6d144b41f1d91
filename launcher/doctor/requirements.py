"""Reads the packages that ftsys needs, their versions, and the versions that were tested."""

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

_CHECKOUT = Path(__file__).parents[2]


def requirements(checkout: Path = _CHECKOUT) -> dict[str, str]:
    """Return package -> versions that work, "" for any, without the packages that only an extra needs."""
    parsed = [Requirement(text) for text in _texts(checkout)]
    wanted = [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return {each.name: str(each.specifier) for each in wanted}


def _texts(checkout: Path) -> list[str]:
    path = checkout / "pyproject.toml"
    if path.exists():
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == "ftsys":
            return list(project["dependencies"])
    return metadata.requires("ftsys") or []


def versions_tested(checkout: Path = _CHECKOUT) -> dict[str, str]:
    """Return package -> its tested version, from constraints.txt; empty if that file is missing."""
    path = checkout / "constraints.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    pins: dict[str, str] = {}
    for line in lines:
        name, equals, version = line.strip().partition("==")
        if equals:
            pins[name.replace("_", "-").lower()] = version
    return pins
