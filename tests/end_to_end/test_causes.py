"""Tests that the error of one rank alone reaches the user: in the output of all ranks, once, and in status.json."""

import time
from pathlib import Path
from typing import Any, NoReturn

from tests.end_to_end.attempts import make_project, start
from tests.end_to_end.commands import read_json

WORDS = "rank 1 has a full disk of its own"


def fill_disk_of_rank_1(rank: int, argument: str) -> None:
    """Have rank 1 fail to write its shard, and rank 0 learn of it from the checkpoint's barrier late."""
    from ftsys.errors import StorageError
    from ftsys.train.checkpoint.store_barrier import StoreBarrier
    from ftsys.train.trainer.checkpointers import run_folder

    def full(*_: Any) -> NoReturn:
        raise StorageError(WORDS)

    def read_late(self: StoreBarrier, name: str) -> Any:
        time.sleep(2.0)
        return read(self, name)

    read = StoreBarrier._read_others
    if rank == 1:
        run_folder.write_shard = full
    else:
        StoreBarrier._read_others = read_late  # type: ignore[method-assign]


def test_an_error_of_one_rank_in_a_checkpoint_is_told_once(tmp_path: Path, minilm_folder: Path) -> None:
    project = make_project(tmp_path, minilm_folder)
    attempt = start(project, 2, ["--train.save_every", "4"], prepare=(fill_disk_of_rank_1, ""))
    assert attempt.statuses() == [1, 1], attempt.log()
    assert attempt.log().count(WORDS) == 1, attempt.log()
    status = read_json(project / "run/status.json")
    assert (status["state"], status["exit"], status["reason"]) == ("failed", 1, WORDS)
