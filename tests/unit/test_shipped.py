"""Tests that shipped files are found wherever pip puts a wheel, and in a checkout."""

from pathlib import Path

import pytest

from ftsys.errors import ConfigError
from ftsys.shipped import shipped

FILES = ("configs/runs/demo.toml", "slurm/job.sh")


@pytest.mark.parametrize("name", FILES)
def test_in_a_checkout(name: str, repository: Path) -> None:
    assert shipped(name) == repository / name


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("installed", "data"),
    [
        ("venv/lib/python3.11/site-packages", "venv"),
        ("venv/lib64/python3.12/site-packages", "venv"),
        ("home/.local/lib/python3.11/site-packages", "home/.local"),
        ("target", "target"),
        ("prefix/lib/python3.11/site-packages", "prefix"),
        ("usr/local/lib/python3.11/dist-packages", "usr/local"),
        ("home/project/.venv/lib/python3.11/site-packages", "home/project/.venv"),
    ],
    ids=["venv", "lib64", "--user", "--target", "--prefix", "debian", "venv in a home"],
)
def test_where_a_wheel_puts_them(installed: str, data: str, name: str, tmp_path: Path) -> None:
    package = tmp_path / installed / "ftsys"
    expected = tmp_path / data / "share/ftsys" / name
    expected.parent.mkdir(parents=True)
    expected.touch()
    package.mkdir(parents=True)
    assert shipped(name, package) == expected


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"slurm/job\.sh is neither in .* install ftsys again"):
        shipped("slurm/job.sh", tmp_path / "ftsys")
