"""A run whose folder a second start takes while the first one is still alive."""

import time
from pathlib import Path

import pytest

from ftsys.train.checkpoint.catalog import complete_checkpoints
from tests.end_to_end.attempts import Attempt, copy_project, make_project, start
from tests.end_to_end.commands import read_json

PATIENCE = 120.0
ENDLESS = ("--train.max_steps", "1000000", "--train.eval_every", "1000000", "--train.save_every", "1")


def wait_for_checkpoint(run: Path, attempt: int, started: Attempt) -> None:
    """Wait until an attempt has a complete checkpoint."""
    deadline = time.monotonic() + PATIENCE
    while not any(found.attempt == attempt for found in complete_checkpoints(run / "checkpoints")):
        assert all(process.is_alive() for process in started.ranks), started.log()
        assert time.monotonic() < deadline, started.log()
        time.sleep(0.05)


@pytest.mark.parametrize(("ranks", "more"), [(1, ()), (1, ("--overwrite",)), (2, ())])
def test_the_older_of_two_live_attempts_leaves_with_77_and_the_newer_one_goes_on(
    ranks: int, more: tuple[str, ...], tmp_path: Path, minilm_folder: Path
) -> None:
    project = make_project(tmp_path / "project", minilm_folder)
    run = project / "run"
    older = start(project, ranks, ENDLESS)
    wait_for_checkpoint(run, 1, older)
    newer = start(copy_project(project, "again"), ranks, (*ENDLESS, "--output_dir", str(run), *more))
    wait_for_checkpoint(run, 2, newer)
    assert older.statuses(PATIENCE) == [77] * ranks, older.log()
    assert "belongs to attempt 2 now; this is attempt 1, which stops" in older.log()
    for process in newer.ranks:
        process.terminate()
    assert newer.statuses(PATIENCE) == [75] * ranks, newer.log()
    status = read_json(run / "status.json")
    assert (status["state"], status["attempt"]) == ("stopped", 2)
