"""Tests the figures of the layout: on a made-up tree, and against the limits of this repository."""

import subprocess
from pathlib import Path

import pytest

from tools.figures import Figures, measure
from tools.house import main

# The most that each figure may be. A limit only goes down.
LIMITS = {
    "imports against the order": 0,
    "cycles of files": 0,
    "files in the largest folder": 15,
    "docstrings of modules that open with a question": 0,
    "docstrings of classes and functions that open with a question": 0,
    "lines of a file, largest": 300,
    "lines of a function, median": 7,
    "lines of a function, 90th percentile": 18,
    "lines of a function, largest": 45,
}

# All that git keeps in the root. What a run or a benchmark leaves there is not to be committed.
TOP_LEVEL = {
    *("launcher", "ftsys", "configs", "slurm", "tests", "benchmarks", "docs", "tools", "constraints"),
    *("pyproject.toml", "constraints.txt", "Makefile", "mkdocs.yml", "README.md", "CHANGELOG.md"),
    *("CONTRIBUTING.md", "SECURITY.md", "LICENSE", ".gitignore", ".clang-format", ".ci"),
}

TREE = {
    "ftsys/__init__.py": '"""Fine-tunes."""\n',
    "ftsys/errors.py": '"""What can go wrong."""\n\n\nclass Wrong(Exception):\n    """Whether, or not."""\n',
    "ftsys/config/__init__.py": '"""Loads the run file."""\n\nfrom ftsys.train.run import (\n    one,\n    two,\n)\n',
    "ftsys/train/run.py": (
        '"""Whatever runs."""\n\n\ndef one():\n    """Return one."""\n    from ftsys import errors\n\n\n'
        "@staticmethod\n@staticmethod\ndef two():\n    import ftsys.train.step\n"
    ),
    "ftsys/train/step.py": (
        "from typing import TYPE_CHECKING\n\nfrom ftsys.errors import Wrong\n\n"
        "if TYPE_CHECKING:\n    from ftsys.train.plan import Plan\n"
    ),
    "ftsys/train/plan.py": "from ftsys.train.run import one\n",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the made-up tree and return its folder."""
    root = tmp_path_factory.mktemp("house")
    for name, text in TREE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def figures(root: Path) -> Figures:
    """Return the figures of the made-up tree."""
    return measure(root)


def test_sizes_and_folders_of_a_made_up_tree(figures: Figures) -> None:
    assert figures.files == len(TREE)
    assert (figures.file_lines.largest, figures.file_lines.place) == (12, "ftsys/train/run.py")
    sizes = figures.function_lines
    assert (sizes.median, sizes.ninetieth, sizes.largest, sizes.place) == (2.5, 3, 3, "ftsys/train/run.py:4 one")
    assert figures.folders == {"ftsys/train": 3, "ftsys": 2, "ftsys/config": 1}


def test_an_upward_import_is_found_once(figures: Figures) -> None:
    assert figures.against_the_order == ["ftsys/config/__init__.py:3 config may not import ftsys.train.run"]


def test_a_cycle_is_found_through_a_function_and_type_checking(figures: Figures) -> None:
    assert figures.cycles == [["ftsys.train.plan", "ftsys.train.run", "ftsys.train.step"]]
    assert figures.cycle_imports == [
        "ftsys/train/plan.py:1 imports ftsys.train.run",
        "ftsys/train/run.py:12 imports ftsys.train.step",
        "ftsys/train/step.py:6 imports ftsys.train.plan",
    ]


def test_modules_with_one_importer_are_found(figures: Figures) -> None:
    assert figures.imported_once == [
        "ftsys/train/step.py:6 imports ftsys.train.plan",
        "ftsys/train/run.py:12 imports ftsys.train.step",
    ]


def test_docstrings_that_open_with_a_question_are_found(figures: Figures) -> None:
    assert figures.module_questions == ["ftsys/errors.py:1 What can go wrong."]
    assert figures.inner_questions == ["ftsys/errors.py:5 Whether, or not."]


def test_the_report_lists_offenders_when_asked(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--root", str(root)])
    short = capsys.readouterr().out
    main(["--root", str(root), "--verbose"])
    long = capsys.readouterr().out
    assert "     1   cycles of files\n           ftsys.train.plan, ftsys.train.run, ftsys.train.step\n" in short
    assert long.startswith(short)
    assert "ftsys/errors.py:5 Whether, or not." in long.removeprefix(short)


def test_a_folder_without_the_packages_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--root", str(tmp_path)])
    assert f"--root {tmp_path}: no Python file" in capsys.readouterr().err


def test_this_repository_is_within_its_limits(repository: Path) -> None:
    figures = measure(repository)
    measured = {
        "imports against the order": len(figures.against_the_order),
        "cycles of files": len(figures.cycles),
        "files in the largest folder": max(figures.folders.values()),
        "docstrings of modules that open with a question": len(figures.module_questions),
        "docstrings of classes and functions that open with a question": len(figures.inner_questions),
        "lines of a file, largest": figures.file_lines.largest,
        "lines of a function, median": figures.function_lines.median,
        "lines of a function, 90th percentile": figures.function_lines.ninetieth,
        "lines of a function, largest": figures.function_lines.largest,
    }
    assert measured.keys() == LIMITS.keys()
    assert figures.files > 200
    over = {name: value for name, value in measured.items() if value > LIMITS[name]}
    assert over == {}, "`python -m tools.house --verbose` lists the places"


def test_the_root_holds_nothing_else(repository: Path) -> None:
    if not (repository / ".git").exists():
        pytest.skip("not a clone: git cannot tell the files that it keeps from others")
    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=True)
    assert {name.split("/")[0] for name in listed.stdout.splitlines()} == TOP_LEVEL
