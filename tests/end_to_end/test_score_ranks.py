"""Scores files on two ranks of which one finds something wrong, dies, or is cut off: the other one leaves soon."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from ftsys.errors import DataError
from tests.end_to_end.attempts import Attempt, start
from tests.end_to_end.score_project import COMMAND, make_score_project

PATIENCE = 90.0
FEW_HEARTBEATS = 3
JOIN_SECONDS = 4.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A tiny classifier and a file of 300 pairs."""
    return make_score_project(tmp_path_factory.mktemp("score"), minilm_folder, 300)


@pytest.fixture
def folder(project: Path, tmp_path: Path) -> Path:
    """A folder of the test's own; `other` is that of a node without the rows."""
    (tmp_path / "other").mkdir()
    (tmp_path / "rows.csv").symlink_to(project / "rows.csv")
    for place in (tmp_path, tmp_path / "other"):
        (place / "model").symlink_to(project / "model")
    return tmp_path


def on_one_rank(rank: int, what: str) -> None:
    """Make this process a rank with windows of few rows, in which rank R does what "R: ..." says.

    A limit is small only where it is to be reached: a busy machine may be slower than that.
    """
    from ftsys.score import ranks, run
    from ftsys.score.windows import ROWS

    number, deed = what.split(": ")
    ROWS["cpu"] = 64
    if deed == "SIGSTOP":
        ranks.SILENT_HEARTBEATS = FEW_HEARTBEATS
    elif deed == "leaves early":
        ranks.JOIN_SECONDS = JOIN_SECONDS
    if int(number) != rank:
        return
    if deed == "is on another node":
        os.chdir("other")
    elif deed == "leaves early":
        sys.exit(3)
    elif deed == "fails alone":
        vars(run)["_command"] = _fail
    else:
        tokenize = vars(run)["_tokenize"]

        def signalled_once(*window: Any) -> None:
            vars(run)["_tokenize"] = tokenize  # it is called for each window
            os.kill(os.getpid(), signal.Signals[deed])
            tokenize(*window)

        vars(run)["_tokenize"] = signalled_once


def _fail(*_: Any) -> dict[str, Any]:
    raise DataError("row 7 is odd")


def started(folder: Path, what: str, words: tuple[str, ...] = ()) -> Attempt:
    return start(folder, 2, words, (on_one_rank, what), COMMAND)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_file_that_one_node_lacks_ends_all_ranks_with_one_error(folder: Path, rank: int) -> None:
    attempt = started(folder, f"{rank}: is on another node")
    assert attempt.statuses(PATIENCE) == [2, 2], attempt.log()
    (line,) = [line for line in attempt.log().splitlines() if "error" in line]
    assert line.endswith("rows.csv: no such file. Correct the name.")
    assert line.startswith("error: rows.csv" if rank == 0 else "error: on rank 1 (")
    assert "Traceback" not in attempt.log()


@pytest.mark.parametrize("words", [("--batch-tokens", "0"), ("--device", "cuda:9"), ("--columns", "none")], ids=str)
def test_what_is_wrong_on_every_rank_is_said_once(folder: Path, words: tuple[str, ...]) -> None:
    attempt = started(folder, "2: nothing", words)
    assert attempt.statuses(PATIENCE) == [2, 2], attempt.log()
    assert attempt.log().count("error: ") == 1, attempt.log()
    assert "on rank 1" not in attempt.log()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_other_one(folder: Path, rank: int) -> None:
    attempt = started(folder, f"{rank}: SIGKILL")
    statuses = attempt.statuses(PATIENCE)
    assert (statuses[rank], statuses[1 - rank]) == (-signal.SIGKILL, 1), attempt.log()
    assert f"error: rank {rank} died (" in attempt.log()
    assert "it goes on from the windows that are finished" in attempt.log()
    assert "Traceback" not in attempt.log()
    again = started(folder, "2: nothing")
    assert again.statuses(PATIENCE) == [0, 0], again.log()
    assert len((folder / "out.csv").read_text().splitlines()) == 301


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_silent_for_too_long_ends_the_other_one(folder: Path, rank: int) -> None:
    attempt = started(folder, f"{rank}: SIGSTOP")
    silent, other = attempt.ranks[rank], attempt.ranks[1 - rank]
    other.join(PATIENCE)
    assert other.exitcode == 1, attempt.log()
    assert f"error: rank {rank} died (" in attempt.log()
    assert f"it sent nothing for {FEW_HEARTBEATS} s" in attempt.log()
    os.kill(int(silent.pid or 0), signal.SIGCONT)
    assert attempt.statuses(PATIENCE)[rank] == 1, "it leaves as well, once it goes on"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_never_comes_is_not_waited_for(folder: Path, rank: int) -> None:
    attempt = started(folder, f"{rank}: leaves early")
    statuses = attempt.statuses(PATIENCE)
    assert (statuses[rank], statuses[1 - rank]) == (3, 2), attempt.log()
    assert f"the ranks have not met within {JOIN_SECONDS:g} s" in attempt.log()
    assert attempt.log().count("error: ") == 1
    assert "Traceback" not in attempt.log()


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_that_a_rank_has_alone_is_printed_by_it_and_ends_the_other_one(folder: Path, rank: int) -> None:
    attempt = started(folder, f"{rank}: fails alone")
    assert attempt.statuses(PATIENCE) == [2, 2], attempt.log()
    assert "row 7 is odd" in (folder / f"rank-{rank}.log").read_text()
    assert "Traceback" not in attempt.log()
