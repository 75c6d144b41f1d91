"""Audits the dependencies without a network: ranges and pins, installed versions, files, licences, known weaknesses.

    python -m tools.packages.audit                 what pyproject.toml asks, constraints.txt pins, and is installed here
    python -m tools.packages.audit PyPI-all.zip    the pins against a copy of OSV's database of advisories too

A copy of the database is one file, https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip, fetched where there
is a network. The exit status is 1 if anything was found.
"""

import base64
import hashlib
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.packages.advisories import advisories_on
from tools.packages.sbom import ROOT, distribution, installed, licence, pins

COPYLEFT = ("GPL", "SSPL", "European Union Public")
"""Words of licences that may reach a program that imports the package."""
WEAK = "LGPL"


def audit(root: Path = ROOT, database: Path | None = None) -> list[str]:
    """Return a line for each finding. Without `database` advisories are left out. Raises OSError and ValueError."""
    text = (root / "constraints.txt").read_text(encoding="utf-8")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = pins(text)
    advised = [] if database is None else list(advisories_on(pinned, database))  # first: it may be unreadable
    found = [*_pin_mistakes(text), *_range_mistakes(project, pinned)]
    here = {name: package for name in pinned if (package := distribution(name)) is not None}
    for name, package in here.items():
        found += [*_version_mistakes(name, pinned[name]), *_licence_mistakes(name, package)]
    return [*found, *changed_files(here), *advised]


def _pin_mistakes(text: str) -> Iterator[str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    names = [canonicalize_name(line.partition("==")[0]) for line in lines]
    yield from (f"constraints.txt: {line!r} is no NAME==VERSION" for line in lines if "==" not in line)
    yield from (f"constraints.txt: {name} is pinned twice" for name in sorted(set(names)) if names.count(name) > 1)


def _range_mistakes(project: Mapping[str, Any], pinned: Mapping[str, str]) -> Iterator[str]:
    """Yield the requirements that no pin meets, extras included."""
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    for requirement in map(Requirement, dict.fromkeys(texts)):
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None:
            yield f"pyproject.toml: {requirement} has no pin in constraints.txt"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"pyproject.toml: {requirement} does not allow the pin {version}"


def _version_mistakes(name: str, version: str) -> Iterator[str]:
    if installed(name, version) is None:
        yield f"{name}: {metadata.version(name)} is installed, and {version} is pinned"


def _licence_mistakes(name: str, found: metadata.Distribution) -> Iterator[str]:
    stated = [each.get("expression") or each["license"]["name"] for each in licence(found).get("licenses", [])]
    if not stated and not found.metadata.get_all("License-File"):
        yield f"{name}: states no licence"
    for text in stated:
        if any(word in text.replace(WEAK, "") for word in COPYLEFT):
            yield f"{name}: its licence is {text!r}, which may reach programs that import it"


def changed_files(packages: Mapping[str, metadata.Distribution]) -> Iterator[str]:
    """Yield the files of installed packages that are missing, or have other bytes than any package's RECORD says.

    Two packages may hold the same file. Scripts outside the library's folder are written by the installer.
    """
    records: dict[Path, set[tuple[str, str]]] = {}
    for found in packages.values():
        for file in found.files or []:
            if file.hash is not None and ".." not in file.parts:  # compiled files and RECORD itself have no hash
                records.setdefault(Path(str(file.locate())), set()).add((file.hash.mode, file.hash.value))
    for path, hashes in records.items():
        if not path.is_file():
            yield f"{path} is missing"
        elif not any(_digest(path, mode) == value for mode, value in hashes):
            yield f"{path} is not the file that was installed"


def _digest(path: Path, mode: str) -> str:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, mode).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def main(arguments: list[str]) -> int:
    """Print the findings; returns 1 if there are any, 2 for files that cannot be read."""
    database = Path(arguments[0]) if arguments else None
    try:
        found = audit(database=database)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in found:
        print(line)
    advised = "without advisories: name a copy of OSV's database" if database is None else f"advisories of {database}"
    print(f"{len(found)} finding(s), {advised}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
