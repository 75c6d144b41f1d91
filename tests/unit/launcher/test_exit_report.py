"""Tests the rank that failed first, the exit status that stands for the run, and the closing lines."""

import json
import signal
from pathlib import Path

import pytest

from ftsys.run_folder.attempts import highest_attempt
from ftsys.run_folder.status import exit_of_this_start
from launcher.exit_report import Outcome, RankExit, closing_lines, last_error, outcome_of
from launcher.log_files import newest_part, on_own_line, title_line

KILLED = RankExit(1, -9, "node2")


def ended(*statuses: tuple[int, int]) -> list[RankExit]:
    return [RankExit(rank, status, "node1") for rank, status in statuses]


def test_all_done() -> None:
    assert outcome_of(ended((1, 0), (0, 0)), 0, None) == Outcome(0)
    assert outcome_of(ended((1, 0), (0, 0)), None, None) == Outcome(0)  # a finished run writes nothing anew


def test_a_rank_that_crashes_after_the_run_was_done_changes_nothing() -> None:
    assert outcome_of(ended((0, 0), (1, -6)), 0, None).status == 0


def test_a_killed_rank_is_a_failure_whatever_the_others_did() -> None:
    assert outcome_of([KILLED, *ended((0, 1))], 1, None) == Outcome(1, KILLED)
    assert outcome_of([KILLED], None, None) == Outcome(1, KILLED)


def test_ranks_that_were_interrupted_because_another_failed_did_not_stop_early() -> None:
    assert outcome_of([KILLED, *ended((0, 75))], 75, None) == Outcome(1, KILLED)


def test_status_json_counts_where_a_later_failure_did_not_write_it() -> None:
    assert outcome_of([KILLED, *ended((0, 76))], 76, None) == Outcome(76, KILLED)
    assert outcome_of(ended((1, 2), (0, 1)), 1, None).status == 2


def test_rank_0_speaks_for_what_all_agree_on() -> None:
    outcome = outcome_of(ended((2, 2), (1, 2), (0, 2)), None, None)
    assert outcome == Outcome(2, RankExit(0, 2, "node1"))
    assert outcome_of(ended((1, 1), (0, 1)), 1, None).first_failure == RankExit(1, 1, "node1")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_stop(stop: signal.Signals) -> None:
    assert outcome_of(ended((1, 75), (0, 75)), 75, stop).status == 75
    assert outcome_of(ended((0, 0), (1, 0)), 0, stop).status == 0  # it came too late to stop anything
    early = outcome_of(ended((0, -15), (1, -2)), None, stop)
    assert early == Outcome(75, None, f"stopped by {stop.name} before training began")
    assert outcome_of([], None, stop).status == 75
    assert outcome_of(ended((1, 75), (0, -10)), None, stop) == early
    assert outcome_of(ended((1, 75), (0, 75)), None, stop).first_failure == RankExit(0, 75, "node1")


def test_a_failure_while_stopping_is_one() -> None:
    assert outcome_of([], None, signal.SIGINT, "the connection to node2 was lost: x").status == 1
    assert outcome_of([KILLED, *ended((0, 75))], None, signal.SIGINT) == Outcome(1, KILLED)


def test_ranks_that_never_began() -> None:
    assert outcome_of([], None, None, "no rank was started on node1") == Outcome(
        1, None, "no rank was started on node1"
    )
    assert outcome_of(ended((0, 0)), None, None, "the connection to node2 was lost: x").status == 1


def test_the_run_folders_word_counts_if_it_is_of_this_start(tmp_path: Path) -> None:
    assert (highest_attempt(tmp_path), exit_of_this_start(tmp_path, 0)) == (0, None)
    (tmp_path / "attempts").mkdir()
    for number in (1, 2):
        (tmp_path / f"attempts/{number:06}.json").write_text("{}")
    (tmp_path / "status.json").write_text(json.dumps({"exit": 75, "attempt": 2}))
    assert highest_attempt(tmp_path) == 2
    assert exit_of_this_start(tmp_path, 1) == 75
    assert exit_of_this_start(tmp_path, 2) is None
    (tmp_path / "status.json").write_text("{")
    assert exit_of_this_start(tmp_path, 1) is None


LOG = """---- 2026-01-01 10:00:00 node1: rank 1
Traceback (most recent call last):
  old
ValueError: of a former start
---- 2026-01-02 10:00:00 node1: rank 1
train: 1/5 steps
Traceback (most recent call last):
  File "x.py", line 1, in <module>
RuntimeError: boom
"""


@pytest.mark.parametrize("former", [None, "", LOG, LOG + "killed in a line"], ids=["none", "empty", "whole", "unended"])
def test_a_title_begins_a_line(former: str | None, tmp_path: Path) -> None:
    log = tmp_path / "rank-1.log"
    if former is not None:
        log.write_text(former)
    begin = on_own_line(title_line("rank 1"), log)
    with log.open("ab") as stream:
        stream.write(begin + b"new\n")
    assert newest_part(log.read_text()) == "new\n"
    assert "\n\n" not in log.read_text()


def test_the_newest_starts_part_of_a_log() -> None:
    assert newest_part(f"{LOG}{title_line('rank 1')}\nnew\n") == "new\n"
    assert newest_part(LOG).startswith("train: 1/5")
    assert newest_part("---- 2026 node1: rank 0\nhello\n") == "hello\n"
    assert newest_part("---- 2026 node1: rank 0\n") == ""


def test_a_ranks_last_error() -> None:
    assert last_error(newest_part(LOG)).splitlines()[-1] == "RuntimeError: boom"
    assert "former" not in last_error(newest_part(LOG))
    assert last_error("a\nerror: bad thing\n") == "error: bad thing"
    assert last_error("nothing of the kind\n") == ""
    assert len(last_error("Traceback (most recent call last)\n" + "x\n" * 500).splitlines()) == 40


def test_the_last_thing_said_is_the_first_failing_ranks_error_and_its_log(tmp_path: Path) -> None:
    (tmp_path / "rank-1.log").write_text(LOG)
    lines = closing_lines(Outcome(1, RankExit(1, 1, "node2")), tmp_path)
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "RuntimeError: boom"
    assert lines[-1] == f"error: rank 1 on node2 ended with status 1; its log: {tmp_path}/rank-1.log"


def test_rank_0_has_said_its_error_already(tmp_path: Path) -> None:
    (tmp_path / "rank-0.log").write_text("---- now\nerror: bad thing\n")
    lines = closing_lines(Outcome(2, RankExit(0, 2, "node1")), tmp_path)
    assert lines == [f"error: rank 0 on node1 ended with status 2; its log: {tmp_path}/rank-0.log"]


def test_a_killed_rank_has_said_nothing(tmp_path: Path) -> None:
    (line,) = closing_lines(Outcome(1, KILLED), tmp_path)
    assert line.startswith("error: rank 1 on node2 was killed by SIGKILL; if nobody killed it, the machine was out of")
    (line,) = closing_lines(Outcome(1, RankExit(1, -11, "node2")), tmp_path)
    assert "killed by SIGSEGV; its log" in line
    (line,) = closing_lines(Outcome(1, RankExit(1, -7, "node2")), tmp_path)
    assert "killed by SIGBUS; a file that it had mapped became shorter" in line


def test_a_good_end_and_a_stop_say_nothing_more(tmp_path: Path) -> None:
    assert closing_lines(Outcome(0), tmp_path) == []
    assert closing_lines(Outcome(75, RankExit(0, 75, "node1")), tmp_path) == []


def test_a_start_that_came_to_nothing_says_what_torchrun_said(tmp_path: Path) -> None:
    (tmp_path / "node-0.log").write_text("---- now\nTraceback (most recent call last):\nOSError: no store\n")
    lines = closing_lines(Outcome(1, None, "no rank was started on node1"), tmp_path)
    assert lines[1:] == ["OSError: no store", f"error: no rank was started on node1; see the logs in {tmp_path}"]
