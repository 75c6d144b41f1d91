"""The audit of dependencies: each kind of finding is found, and nothing is found in the project as it is."""

import base64
import hashlib
import json
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tools.packages import audit as audit_module
from tools.packages.advisories import advisories_on, is_affected
from tools.packages.audit import audit, changed_files, main

PROJECT = """
[project]
dependencies = ["numpy>=2", "rich>=14"]
[project.optional-dependencies]
more = ["numpy<99", "safetensors"]
"""


def project(folder: Path, pins: str) -> Path:
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "constraints.txt").write_text(pins)
    return folder


def test_pins_and_ranges_of_the_project_agree(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "distribution", lambda name: None)  # what is installed here is another matter
    assert audit(repository) == []


def test_a_pin_that_is_missing_double_or_out_of_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "distribution", lambda name: None)
    found = audit(project(tmp_path, "# a comment\nnumpy==1.26.0\nNumPy==1.26.0\nrich>=14\n"))
    assert found == [
        "constraints.txt: 'rich>=14' is no NAME==VERSION",
        "constraints.txt: numpy is pinned twice",
        "pyproject.toml: numpy>=2 does not allow the pin 1.26.0",
        "pyproject.toml: rich>=14 has no pin in constraints.txt",
        "pyproject.toml: safetensors has no pin in constraints.txt",
    ]


def installed_package(folder: Path, licence: str = "License-Expression: MIT") -> metadata.Distribution:
    """A package "small" with one file and a script, installed into an empty folder."""
    info = folder / "lib/small-1.dist-info"
    info.mkdir(parents=True)
    (folder / "lib/small.py").write_text("x = 1\n")
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: small\nVersion: 1\n{licence}\n")
    value = base64.urlsafe_b64encode(hashlib.sha256(b"x = 1\n").digest()).rstrip(b"=").decode()
    lines = [f"small.py,sha256={value},6", "small.pyc,,", f"../bin/small,sha256={value},6"]
    (info / "RECORD").write_text("\n".join(lines) + "\n")
    return metadata.Distribution.at(info)


def test_a_file_with_other_bytes_or_none(tmp_path: Path) -> None:
    package = {"small": installed_package(tmp_path)}
    assert list(changed_files(package)) == []
    (tmp_path / "lib/small.py").write_text("x = 2\n")
    assert list(changed_files(package)) == [f"{tmp_path / 'lib/small.py'} is not the file that was installed"]
    (tmp_path / "lib/small.py").unlink()
    assert list(changed_files(package)) == [f"{tmp_path / 'lib/small.py'} is missing"]


@pytest.mark.parametrize(
    ("licence", "found"),
    [
        ("License-Expression: MIT", []),
        ("Classifier: License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", []),
        ("License: AGPL-3.0", ["small: its licence is 'AGPL-3.0', which may reach programs that import it"]),
        ("Summary: none", ["small: states no licence"]),
        ("License-File: LICENSE", []),
    ],
)
def test_a_licence_that_reaches_importers(
    licence: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = installed_package(tmp_path, licence)
    monkeypatch.setattr(audit_module, "distribution", lambda name: package if name == "small" else None)
    monkeypatch.setattr(audit_module, "installed", lambda name, version: package)
    pinned = project(tmp_path, "small==1\nnumpy==2.1\nrich==14.0\nsafetensors==1\n")
    assert audit(pinned) == found


def test_another_version_than_the_pinned_one(tmp_path: Path) -> None:
    found = audit(project(tmp_path, "numpy==98.0\nrich==14.0\nsafetensors==1\n"))
    assert f"numpy: {metadata.version('numpy')} is installed, and 98.0 is pinned" in found


def events(*pairs: str) -> dict[str, Any]:
    steps = [dict([pair.split("=")]) for pair in pairs]
    return {"ranges": [{"type": "ECOSYSTEM", "events": steps}, {"type": "GIT", "events": [{"introduced": "0"}]}]}


@pytest.mark.parametrize(
    ("version", "affected", "is_it"),
    [
        ("1.9", events("introduced=0", "fixed=1.10"), True),  # as versions, not as text
        ("1.10", events("introduced=0", "fixed=1.10"), False),
        ("1.10rc1", events("introduced=0", "fixed=1.10"), True),
        ("2.0", events("introduced=1.0", "last_affected=2.0"), True),
        ("2.0.1", events("introduced=1.0", "last_affected=2.0"), False),
        ("0.9", events("introduced=1.0", "fixed=2.0"), False),
        ("3.1", events("introduced=1.0", "fixed=2.0", "introduced=3.0", "fixed=3.2"), True),
        ("2.5", events("introduced=1.0", "fixed=2.0", "introduced=3.0", "fixed=3.2"), False),
        ("1.0", events("introduced=no-version", "fixed=no-version"), True),
        ("1.0", {"versions": ["1.0"]}, True),
        ("1.1", {"versions": ["1.0"]}, False),
    ],
)
def test_versions_in_ranges(version: str, affected: Mapping[str, Any], is_it: bool) -> None:
    assert is_affected(version, affected) is is_it


def test_a_database_in_one_file(tmp_path: Path) -> None:
    def advisory(name: str, **more: Any) -> dict[str, Any]:
        package = {"package": {"ecosystem": "PyPI", "name": "Small_One"}, "versions": ["1"]}
        return {"id": name, "affected": [package], **more}

    rows = [
        advisory("OSV-1", summary="it leaks", aliases=["CVE-2", "CVE-1"]),
        advisory("OSV-2", withdrawn="2026-01-01T00:00:00Z"),
        {"id": "OSV-3", "affected": [{"package": {"ecosystem": "npm", "name": "small-one"}, "versions": ["1"]}]},
        {"id": "OSV-4"},
    ]
    database = tmp_path / "all.zip"
    with zipfile.ZipFile(database, "w") as archive:
        archive.writestr("README.md", "not JSON")
        for row in rows:
            archive.writestr(f"{row['id']}.json", json.dumps(row))
    assert list(advisories_on({"small-one": "1"}, database)) == ["small-one 1: OSV-1, CVE-1, CVE-2: it leaks"]
    assert list(advisories_on({"small-one": "2"}, database)) == []
    database.write_text("no zip")
    with pytest.raises(ValueError, match="is no zip file"):
        list(advisories_on({"small-one": "1"}, database))


def test_findings_set_the_status(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "audit", lambda database: ["small: it leaks"])
    assert main([]) == 1
    assert "small: it leaks\n1 finding(s)" in capsys.readouterr().out
    monkeypatch.setattr(audit_module, "audit", lambda database: [])
    assert main([]) == 0


def test_a_database_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.zip")]) == 2
    assert "none.zip" in capsys.readouterr().err
