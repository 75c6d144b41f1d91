"""Writes a software bill of materials of constraints.txt, in CycloneDX 1.6 JSON, from what is installed here.

Needs no network: licences and dependencies come from the installed packages' own metadata. A pin that is not installed,
or is installed in another version, is listed by name and version alone. The same input gives the same bytes.
"""

import hashlib
import json
import sys
import uuid
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ftsys import __version__

ROOT = Path(__file__).parents[2]


def pins(text: str) -> dict[str, str]:
    """Return versions by canonical name, of the lines NAME==VERSION."""
    pairs = (line.partition("==") for line in text.splitlines() if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in pairs}


def bill(pinned: Mapping[str, str]) -> dict[str, Any]:
    """Return the bill: ftsys, a component for each pin, and who depends on whom."""
    root = _component("ftsys", __version__, "application")
    here = {name: found for name, version in pinned.items() if (found := installed(name, version))}
    components = [_component(name, version) | licence(here.get(name)) for name, version in pinned.items()]
    edges = [{"ref": root["bom-ref"], "dependsOn": _needs(distribution("ftsys"), pinned)}]
    edges += [{"ref": _purl(name, pinned[name]), "dependsOn": _needs(found, pinned)} for name, found in here.items()]
    digest = hashlib.sha256(json.dumps([components, edges]).encode()).hexdigest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(digest[:32])}",
        "version": 1,
        "metadata": {"component": root},
        "components": components,
        "dependencies": edges,
    }


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"


def _component(name: str, version: str, kind: str = "library") -> dict[str, Any]:
    purl = _purl(name, version)
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def installed(name: str, version: str) -> metadata.Distribution | None:
    """Return the installed package if it has this version; a local tag such as "+cpu" does not matter."""
    found = distribution(name)
    return found if found is not None and found.version.partition("+")[0] == version else None


def licence(found: metadata.Distribution | None) -> dict[str, Any]:
    """Return the licence as the package states it: an SPDX expression, or the first line of a free text."""
    if found is None:
        return {}
    for expression in found.metadata.get_all("License-Expression") or []:
        return {"licenses": [{"expression": expression}]}
    stated = [each.rpartition(" :: ")[2] for each in found.metadata.get_all("Classifier") or [] if "License ::" in each]
    names = stated or "".join(found.metadata.get_all("License") or []).strip().splitlines()[:1]
    return {"licenses": [{"license": {"name": name}} for name in names]} if names else {}


def _needs(found: metadata.Distribution | None, pinned: Mapping[str, str]) -> list[str]:
    """Return references to the pinned packages that a package requires here, extras left out."""
    asked = [Requirement(text) for text in (found.requires or [] if found is not None else [])]
    names = {canonicalize_name(each.name) for each in asked if not each.marker or each.marker.evaluate({"extra": ""})}
    return sorted(_purl(name, pinned[name]) for name in names if name in pinned)


def main(path: Path = ROOT / "dist/ftsys.cdx.json") -> int:
    """Write the bill and print its path."""
    content = bill(pins((ROOT / "constraints.txt").read_text(encoding="utf-8")))
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"{path}: {len(content['components'])} components")
    return 0


if __name__ == "__main__":
    sys.exit(main())
