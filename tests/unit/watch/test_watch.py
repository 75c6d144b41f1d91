"""Tests `ftsys watch`: the values of a snapshot, its text, and when it ends."""

import json
import shlex
from pathlib import Path

import pytest

from ftsys.cli import main
from ftsys.watch.command import looks, snapshots
from ftsys.watch.snapshot import take_snapshot
from ftsys.watch.view import cells, rich_table, text_lines
from tests.unit.html_report.folders import status, write_json, write_run


def test_a_running_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", finished=False)
    log = folder / "metrics.jsonl"
    lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= 12]
    log.write_text("\n".join(lines) + '\n{"step": 14, "lo')  # the last line is being written
    run = take_snapshot(folder, "one", now=1010.0)
    assert (run.state, run.step, run.total, run.tokens_per_s) == ("running", 12, 20, 1200.0)
    assert run.metrics == {"accuracy": 0.26}
    assert run.loss == pytest.approx(1 / 12 + 0.01)
    assert run.seconds_left == pytest.approx(8.0)  # eight steps at a step a second
    assert (run.silent, run.stalled, run.ended) == (10.0, False, False)
    assert cells(run) == ("one", "running: train", "12/20", "0.0933", "1,200", "accuracy 0.2600", "0:08", "")


def test_a_run_without_news_is_said_to_stall(tmp_path: Path) -> None:
    run = take_snapshot(write_run(tmp_path / "one", finished=False), "one", now=1000.0 + 3725)
    assert run.stalled
    assert cells(run)[-1] == "no news for 1:02:05: a rank may hang, or the run was killed"


@pytest.mark.parametrize("damage", ["{", '{"state": 5, "step": "x", "time": null}', "[]", ""])
def test_damaged_files_are_no_error(tmp_path: Path, damage: str) -> None:
    folder = write_run(tmp_path / "one")
    for name in ("status.json", "plan.json", "metrics.jsonl"):
        (folder / name).write_text(damage)
    assert take_snapshot(folder, "one").total is None


def test_one_look_prints_aligned_text_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "runs" / "seed-1")
    write_json(folder / "status.json", status("failed", 20) | {"reason": "\x1b[2Jdisk\x07 is\nfull"})
    write_run(tmp_path / "runs" / "seed-10", seed=10)
    assert main(["watch", str(tmp_path / "runs"), "--once"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "run      state    step    loss  tokens/s  last metrics",
        "seed-1   failed  20/20  0.0600     2,000  accuracy 0.5100  disk is",
        "seed-10  done    20/20  0.1500     2,000  accuracy 0.6000",
    ]


def test_a_run_with_two_names_is_shown_once(tmp_path: Path) -> None:
    write_run(tmp_path / "seed-1")
    (tmp_path / "latest").symlink_to("seed-1")
    assert [run.name for run in next(looks([tmp_path], 1.0))] == ["seed-1"]


def test_runs_of_two_folders_have_names_that_tell_them_apart(tmp_path: Path) -> None:
    for name in ("a/mrpc/seed-1", "b/mrpc/seed-1", "b/mrpc/seed-2"):
        write_run(tmp_path / name)
    found = [run.name for run in snapshots([tmp_path / "a", tmp_path / "b"])]
    assert found == [str(tmp_path / "a/mrpc/seed-1"), str(tmp_path / "b/mrpc/seed-1"), "mrpc/seed-2"]


def test_it_ends_when_all_runs_have_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "one", finished=False)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            write_json(folder / "status.json", status("done", 20))

    found = [runs[0].state for runs in looks([folder], 3.0, sleep)]
    assert (found, slept) == (["running", "running", "done"], [3.0, 3.0])
    assert main(["watch", str(folder)]) == 0  # it has ended, so this returns at once
    assert capsys.readouterr().out.endswith("\n1 done\n")


def test_a_folder_of_runs_is_watched_for_the_next_one(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "seed-1")
    now = [0.0]
    found = looks([tmp_path / "runs"], 4.0, lambda seconds: now.__setitem__(0, now[0] + seconds), lambda: now[0])
    assert [len(runs) for runs in found] == [1, 1, 1, 1]  # at 0, 4, 8 and 12 seconds


def test_no_run_and_another_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(tmp_path), "gpu7:runs/mrpc", "--once"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("is not a run folder and holds none") == 2
    assert "On another machine: ssh -t gpu7 ftsys watch runs/mrpc" in printed


@pytest.mark.parametrize(("there", "read"), [("my runs", "'my runs'"), ("~/my runs", "~/'my runs'"), ("~/a", "~/a")])
def test_both_shells_read_the_folder_of_another_machine_as_it_was_given(
    capsys: pytest.CaptureFixture[str], there: str, read: str
) -> None:
    assert main(["watch", f"gpu7:{there}", "--once"]) == 2
    command = capsys.readouterr().err.rpartition("On another machine: ")[2]
    assert shlex.split(command) == ["ssh", "-t", "gpu7", "ftsys", "watch", read]


def test_the_table_of_a_terminal(tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=(tmp_path / "terminal").open("w"))
    console.print(rich_table([take_snapshot(write_run(tmp_path / "one"), "one [red]x")]))
    assert "one [red]x  done" in console.export_text()
    assert len(text_lines([])) == 1
