"""Tests how a trial is said to have ended, by its exit status, its run folder and its log."""

from pathlib import Path
from typing import Any

import pytest

from ftsys.errors import NOT_OURS, STOPPED_EARLY
from ftsys.run_folder.attempts import take_attempt
from ftsys.run_folder.status import STATE_OF, write_status
from ftsys.sweep.outcome import Outcome, Start, about_to_start, outcome_of

SWEEP: Any = None
"""Of no trial below is a result looked up."""
ANOTHER_OUTPUT = "In a sweep: use another --output."


def attempt(folder: Path, number: int) -> None:
    (folder / "attempts").mkdir(parents=True, exist_ok=True)
    assert take_attempt(folder, number, {"identity": "run", "attempt": number, "first_attempt": 1})


def ended(folder: Path, number: int, exit_status: int, reason: str) -> None:
    assert write_status(folder, STATE_OF[exit_status], exit_status, reason, "train", 3, number)


@pytest.fixture
def started(tmp_path: Path) -> Start:
    """The second start of a trial, whose first one was stopped."""
    folder, log = tmp_path / "trial-0", tmp_path / "trial-0.log"
    attempt(folder, 1)
    ended(folder, 1, STOPPED_EARLY, "stopped by SIGTERM")
    log.write_text("error: of the first start\n")
    return about_to_start(folder, log)


def says(start: Start, text: str) -> None:
    with start.log.open("a") as stream:
        stream.write(text)


def test_a_refused_start_has_failed_for_the_reason_in_its_log(started: Start) -> None:
    says(started, "loading\nerror: of the past\nerror: the checkpoints\nare of\nother data.\n")
    reason = f"exit status 77: the checkpoints are of other data. {ANOTHER_OUTPUT}"
    assert outcome_of(NOT_OURS, SWEEP, started, pruned=False) == Outcome("fail", reason=reason)


def test_a_refused_start_in_a_folder_that_is_gone_has_failed(tmp_path: Path) -> None:
    start = about_to_start(tmp_path / "trial-0", tmp_path / "trial-0.log")
    start.log.write_text("")
    assert outcome_of(NOT_OURS, SWEEP, start, False) == Outcome("fail", reason=f"exit status 77 {ANOTHER_OUTPUT}")


def test_an_attempt_that_finds_a_later_checkpoint_has_failed(started: Start) -> None:
    attempt(started.folder, 2)
    ended(started.folder, 2, NOT_OURS, "a later attempt has written it.")
    outcome = outcome_of(NOT_OURS, SWEEP, started, pruned=False)
    assert (outcome.state, outcome.reason) == ("fail", "a later attempt has written it.")


@pytest.mark.parametrize("written", [True, False])
def test_a_run_whose_folder_has_a_newer_attempt_is_lost(started: Start, written: bool) -> None:
    attempt(started.folder, 2)
    ended(started.folder, 2, NOT_OURS, "an older attempt's")
    attempt(started.folder, 3)
    if written:
        write_status(started.folder, "running", None, "", "train", 3, 3)
    assert outcome_of(NOT_OURS, SWEEP, started, pruned=False) == Outcome("lost")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "exit status 2"),
        ("error: no such model\n", "exit status 2: no such model"),
        ("Traceback:\n  line 1\nValueError: wrong\n", "exit status 2: ValueError: wrong"),
        ("error: one\n2\n3\n4\n5\n6\n7\n", "exit status 2: one 2 3 4 5"),
    ],
)
def test_a_failure_before_any_attempt_has_no_reason_of_an_earlier_start(said: str, reason: str, started: Start) -> None:
    says(started, said)
    assert outcome_of(2, SWEEP, started, pruned=False) == Outcome("fail", reason=reason)


@pytest.mark.parametrize("status", [-15, -9, 143, 137])
def test_a_trial_that_a_signal_ends_when_the_sweep_is_told_to_stop_goes_on_later(status: int, started: Start) -> None:
    assert outcome_of(status, SWEEP, started, pruned=False, told_to_stop=True) == Outcome("stopped")
    assert outcome_of(status, SWEEP, started, pruned=False).state == "fail"
    assert outcome_of(1, SWEEP, started, pruned=False, told_to_stop=True).state == "fail"


def test_other_ends(started: Start) -> None:
    assert outcome_of(STOPPED_EARLY, SWEEP, started, pruned=False) == Outcome("stopped")
    assert outcome_of(STOPPED_EARLY, SWEEP, started, pruned=True) == Outcome("pruned")
