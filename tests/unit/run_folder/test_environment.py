"""Tests env.json: versions, machine and the commit of the code."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ftsys.cpus.instructions import vector_instructions
from ftsys.run_folder import environment as environment_module
from ftsys.run_folder.environment import commit, environment


def test_environment_can_be_written(tmp_path: Path) -> None:
    found = json.loads(json.dumps(environment()))
    assert found["versions"]["numpy"] == np.__version__
    assert set(found["versions"]) >= {"python", "ftsys", "torch", "transformers"}
    assert found["cpu_cores"] >= 1
    assert found["memory_bytes"] > 2**28
    assert found["cpu"]
    assert found["cpu_instructions"] == list(vector_instructions())
    assert isinstance(found["command"], list)


def test_commit_of_a_checkout_and_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "checkout" / "ftsys" / "train"
    package.mkdir(parents=True)
    source = package / "results.py"
    source.write_text("")
    monkeypatch.setattr(environment_module, "__file__", str(source))
    assert commit() is None, "no repository"

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@y", "-c", "core.hooksPath=/dev/null"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path / "checkout", check=True, capture_output=True)

    git("init", "-q")
    (package / "other.py").write_text("")
    git("add", "ftsys/train/other.py")
    git("commit", "-qm", "x")
    assert commit() is None, "installed inside somebody else's repository"
    git("add", ".")
    git("commit", "-qm", "y")
    head = commit()
    assert head is not None
    assert len(head) == 40
    source.write_text("# changed")
    assert commit() == f"{head}+"
    monkeypatch.setenv("PATH", "")
    assert commit() is None, "no git"
