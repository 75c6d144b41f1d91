"""Tests the commit that a record names."""

import subprocess
from pathlib import Path

from ftsys.bench.harness.record import commit_of

AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.org")


def test_records_do_not_make_a_commit_dirty_and_sources_do(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == "none"
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, *AUTHOR, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    commit, code = commit_of(tmp_path), tmp_path / "ftsys" / "bench"
    assert len(commit) == 40
    code.mkdir(parents=True)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "step.json").write_text("{}")
    assert commit_of(code) == commit
    (tmp_path / "ftsys" / "new.py").write_text("")
    assert commit_of(code) == f"{commit}-dirty"
