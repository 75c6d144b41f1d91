"""Tests which run folders are found below a folder, with links in it."""

from pathlib import Path

import pytest

from ftsys.run_folder.discover import find_run_folders
from ftsys.run_folder.layout import RESULTS


def make_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / RESULTS).write_text("{}")
    return folder


@pytest.mark.timeout(60)
def test_links_to_folders_above_are_searched_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "tables/run")
    for number in range(200):
        (tmp_path / f"{number}").symlink_to(".")
        (tmp_path / f"tables/{number}").symlink_to(".." if number % 2 else ".")
    assert find_run_folders(tmp_path) == [run]


def test_a_run_has_its_name_without_links_and_the_order_of_the_names(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name) for name in ("b/seed-2", "b/seed-10", "c/x/run")]
    (tmp_path / "a").symlink_to("b")
    assert find_run_folders(tmp_path) == runs


def test_a_link_reaches_a_run_that_lies_too_deep(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a/b/c/d/e/run")
    assert find_run_folders(tmp_path) == []
    (tmp_path / "z").symlink_to("a/b/c/d")
    assert find_run_folders(tmp_path) == [tmp_path / "z/e/run"]
    assert find_run_folders(run) == [run]
