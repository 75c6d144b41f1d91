"""Tests that what ended one rank alone reaches the user: in the output of all ranks, once, and in status.json."""

import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.end_to_end.attempts import make_project, start
from tests.end_to_end.commands import read_json
from tests.end_to_end.phases import linger, wait_until_reached

WORDS = "rank 1 has a full disk of its own"


def fill_disk_of_rank_1(rank: int, argument: str) -> None:
    """Have rank 1 fail to write its shard, and rank 0 learn of it from the checkpoint's barrier late."""
    from ftsys.errors import StorageError
    from ftsys.train.checkpoint.store_barrier import StoreBarrier
    from ftsys.train.trainer.checkpointers import run_folder

    def full(*_: Any, **__: Any) -> NoReturn:
        raise StorageError(WORDS)

    def read_late(self: StoreBarrier, name: str) -> Any:
        time.sleep(2.0)
        return read(self, name)

    read = StoreBarrier._read_others
    if rank == 1:
        run_folder.write_shard = full
    else:
        StoreBarrier._read_others = read_late  # type: ignore[method-assign]  # this process is one rank


def test_an_error_of_one_rank_in_a_checkpoint_is_told_once(tmp_path: Path, minilm_folder: Path) -> None:
    project = make_project(tmp_path, minilm_folder)
    attempt = start(project, 2, ["--train.save_every", "4"], prepare=(fill_disk_of_rank_1, ""))
    assert attempt.statuses() == [1, 1], attempt.log()
    assert attempt.log().count(WORDS) == 1, attempt.log()
    status = read_json(project / "run/status.json")
    assert (status["state"], status["exit"], status["reason"]) == ("failed", 1, WORDS)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_killed_before_the_training_is_named_by_the_other(
    tmp_path: Path, minilm_folder: Path, victim: int
) -> None:
    """No launcher is there to correct status.json, as under torchrun."""
    project = make_project(tmp_path, minilm_folder)
    attempt = start(project, 2, prepare=(linger, "set-up"))
    wait_until_reached(attempt, victim)
    os.kill(attempt.ranks[victim].pid or 0, signal.SIGKILL)
    statuses = attempt.statuses()
    assert (statuses[victim], statuses[1 - victim]) == (-signal.SIGKILL, 1), attempt.log()
    assert attempt.log().count(f"error: rank {victim} died") == 1, attempt.log()
    status = read_json(project / "run/status.json")
    assert (status["state"], status["exit"]) == ("failed", 1)
    assert status["reason"].startswith(f"rank {victim} died")
