"""What holds for the repository as a whole."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

LINES = 300
SOURCES = ("ftsys", "launcher", "tests", "benchmarks", "tools")


def ours(repository: Path) -> list[Path]:
    """Every file that is or may be committed, as git sees it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    paths = [repository / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def spans(text: str) -> str:
    """What a Markdown text shows as code, blocks and spans."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL))


def test_every_file_is_one_room(repository: Path) -> None:
    files = [path for path in ours(repository) if path.suffix == ".py"]
    assert {repository / top for top in SOURCES} <= {parent for path in files for parent in path.parents}
    long = {str(path.relative_to(repository)): count for path in files if (count := len(lines(path))) > LINES}
    assert long == {}


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_no_file_names_the_place_it_was_written_in(repository: Path) -> None:
    # Built from parts, so that this file passes its own test.
    places = ["/" + "work" + "/", "/" + "opt" + "/ft", "/" + "opt" + "/wheels", "/" + "root" + "/", "/" + "tmp" + "/w/"]
    pattern = re.compile("|".join(re.escape(place) for place in places).encode())
    files = ours(repository)
    assert len(files) > 30
    named = {
        f"{path.relative_to(repository)}: {found.group().decode()}"
        for path in files
        if (found := pattern.search(path.read_bytes()))
    }
    assert named == set()


def test_the_make_commands_that_are_documented_exist(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), flags=re.MULTILINE))
    texts = [repository / name for name in ("README.md", "CONTRIBUTING.md", ".ci/run")]
    code = [path.read_text() if path.name == "run" else spans(path.read_text()) for path in texts]
    named = {word for text in code for word in re.findall(r"^`?(?:\w+=\S+ )*make ([a-z-]+)\b", text, re.MULTILINE)}
    assert {"demo", "test", "check"} <= named
    assert named <= targets


def test_the_ftsys_commands_that_are_documented_exist(repository: Path) -> None:
    named = set(re.findall(r"\bftsys (?!import\b)([a-z-]+)\b", spans((repository / "README.md").read_text())))
    shown = subprocess.run(
        [sys.executable, "-m", "ftsys", "--help"], cwd=repository, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert {"train", "prepare"} <= named <= set(re.findall(r"[a-z-]+", shown.stdout))


def test_files_that_are_documented_exist(repository: Path) -> None:
    text = spans((repository / "CONTRIBUTING.md").read_text()) + spans((repository / "README.md").read_text())
    named = set(re.findall(r"\b((?:ftsys|launcher|tests|configs|tools)/[\w/.]+)", text))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (repository / name).exists()] == []


def test_the_tested_versions_are_within_what_is_asked_for(repository: Path) -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    pins = [line.partition("==") for line in lines(repository / "constraints.txt") if not line.startswith("#")]
    tested = {canonicalize_name(name): pinned for name, _, pinned in pins}
    asked = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    assert len(asked) > 20
    wrong = [
        each for each in map(Requirement, asked) if tested.get(canonicalize_name(each.name), "") not in each.specifier
    ]
    assert wrong == []
    assert "+" not in "".join(tested.values()), "a local version would tie the build of torch to one kind of machine"


def test_ci_can_be_started(repository: Path) -> None:
    script = repository / ".ci/run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
