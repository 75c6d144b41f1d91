"""Tests that packages hold every file that an installed ftsys needs, and that containers install by the Makefile."""

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tools.packages.contents import missing, needed
from tools.packages.sbom import bill, main, pins

RECIPES = ("tools/containers/Dockerfile", "tools/containers/ftsys.def")


def test_every_file_is_in_a_package_or_named_by_the_project(repository: Path) -> None:
    """A wheel takes Python files of folders with an __init__.py, and others by the patterns of pyproject.toml."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]
    data = [f"ftsys/{pattern}" for pattern in project["package-data"]["ftsys"]]
    shared = [pattern for patterns in project["data-files"].values() for pattern in patterns]
    names = needed(repository)
    assert {"ftsys/kernels/native/attention.cpp", "launcher/agent/rank.py", "slurm/job.sh"} <= names
    loose = [name for name in names if not name.endswith(".py") and not any(fnmatch(name, p) for p in data + shared)]
    assert loose == []
    folders = {(repository / name).parent for name in names if name.endswith(".py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_a_missing_file_is_found_in_an_archive_with_folders_above(tmp_path: Path) -> None:
    for name in ("ftsys/__init__.py", "ftsys/kernels/native/a.cpp", "slurm/job.sh", "ftsys/__pycache__/a.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    archived = ["ftsys/__init__.py", "ftsys-1.data/data/share/ftsys/slurm/job.sh", "native/a.cpp"]
    assert missing(tmp_path, archived) == ["ftsys/kernels/native/a.cpp"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_container_installs_by_the_makefile(name: str, repository: Path) -> None:
    text = (repository / name).read_text()
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    used = re.findall(r"^[^#\n]*\bmake ([a-z-]+)", text, re.MULTILINE)
    assert used == ["install"]
    assert set(used) <= targets
    assert not re.search(r"^[^#\n]*\bpip install", text, re.MULTILINE), "a second list of packages would grow stale"
    assert name in text, "its head shows the command that builds it"


def test_both_containers_have_the_same_base_and_system_packages(repository: Path) -> None:
    texts = [(repository / name).read_text() for name in RECIPES]
    bases = {re.search(r"^(?:FROM|From:) (\S+)", text, re.MULTILINE).group(1) for text in texts}  # type: ignore[union-attr]
    asked = {re.search(r"apt-get install (.*?)(?: \\)?$", text, re.MULTILINE).group(1) for text in texts}  # type: ignore[union-attr]
    assert len(bases) == len(asked) == 1
    version = tuple(map(int, re.findall(r"\d+", bases.pop())[:2]))
    assert version >= (3, 11)


def test_the_bill_has_every_pin_once_and_refers_to_nothing_else(repository: Path, tmp_path: Path) -> None:
    pinned = pins((repository / "constraints.txt").read_text())
    content = bill(pinned)
    assert [each["name"] for each in content["components"]] == list(pinned)
    known = {each["bom-ref"] for each in [*content["components"], content["metadata"]["component"]]}
    assert {ref for edge in content["dependencies"] for ref in (edge["ref"], *edge["dependsOn"])} <= known
    torch = next(each for each in content["components"] if each["name"] == "torch")
    assert torch["purl"] == f"pkg:pypi/torch@{pinned['torch']}"
    assert main(tmp_path / "bill.json") == 0
    assert json.loads((tmp_path / "bill.json").read_text()) == content, "the same input gives the same bytes"


def test_a_pin_that_is_not_installed_has_name_and_version_alone() -> None:
    content = bill({"numpy": "0.0.1", "no-such-package": "7"})
    assert [sorted(each) for each in content["components"]] == [["bom-ref", "name", "purl", "type", "version"]] * 2
    assert [edge["ref"] for edge in content["dependencies"]] == [content["metadata"]["component"]["bom-ref"]]
