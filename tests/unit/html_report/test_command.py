"""Tests the arguments of `ftsys report` that write files, and what is missing for them."""

import json
import os
import re
from pathlib import Path

import pytest

from ftsys.cli import main
from ftsys.html_report import command
from tests.unit.html_report.folders import log_lines, status, write_run


def test_no_run_found_is_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    arguments = [str(tmp_path / "empty"), str(tmp_path / "missing"), "--html", str(tmp_path / "a.html")]
    assert main(["report", *arguments]) == 2
    assert capsys.readouterr().err.count("is not a run folder and holds none") == 2
    assert not (tmp_path / "a.html").exists()


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(["report", str(write_run(tmp_path / "one")), "--png", str(tmp_path / "png")]) == 2
    assert (
        capsys.readouterr().err == "error: --html and --png need Jinja2 and matplotlib: pip install 'ftsys[report]'.\n"
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--title", "x"], "--title 'x' is that of a page: add --html FILE or --png FOLDER."),
        (["--json", "--html", "a.html"], "--json prints, --html and --png write: leave one of them out."),
    ],
)
def test_options_without_effect_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    assert main(["report", str(tmp_path), *flags]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_names_of_runs_tell_them_apart(tmp_path: Path) -> None:
    for name in ("a/seed-1", "b/seed-1", "b/seed-2"):
        write_run(tmp_path / name)
    assert list(command._folders([tmp_path / "a", tmp_path / "b"])) == ["seed-1", str(tmp_path / "b/seed-1"), "seed-2"]


def test_a_run_with_two_names_is_on_the_page_once(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path / f"runs/seed-{seed}", seed)
    (tmp_path / "runs/latest").symlink_to("seed-2")
    assert list(command._folders([tmp_path / "runs"])) == ["seed-1", "seed-2"]
    assert list(command._folders([tmp_path / "runs", tmp_path / "runs/seed-2"])) == ["seed-1", "seed-2"]


@pytest.mark.parametrize(
    "flags", [["--html", "."], ["--html", ""], ["--html", "runs"], ["--png", "runs/one/plan.json"]]
)
def test_a_place_that_cannot_be_written_is_told_before_runs_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    write_run(tmp_path / "runs/one")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "find_run_folders", lambda _: pytest.fail("runs were looked for"))
    assert main(["report", "runs", *flags]) == 2
    assert capsys.readouterr().err.startswith(f"error: {flags[0]} ")


def test_names_that_are_not_utf8_are_shown_with_escapes(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    odd = "\ud83d"
    for number, name in enumerate((b"caf\xe9", b"caf\xea")):
        folder = write_run(tmp_path / "runs/one", number + 1).rename(tmp_path / "runs" / os.fsdecode(name))
        lines = [json.dumps(line | {f"score {odd}": 0.5}) for line in log_lines(number)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "status.json").write_text(json.dumps(status("failed", 20) | {"reason": f"by {odd}"}))
    page, images = tmp_path / "page.html", tmp_path / "png"
    assert main(["report", str(tmp_path / "runs"), "--html", str(page), "--png", str(images)]) == 0
    text = page.read_text(encoding="utf-8")
    assert {"caf\\udce9", "caf\\udcea", "score \\ud83d"} <= set(re.findall(r"\w+ ?\\ud\w+", text))
    assert list(images.glob("*score*.png"))
