"""A run of whole processes of which a rank hangs."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.attempts import make_project, start
from tests.end_to_end.commands import read_json

PATIENCE = 120.0


@pytest.fixture
def project(tmp_path: Path, minilm_folder: Path) -> Path:
    return make_project(tmp_path / "project", minilm_folder)


def hang_in_step(rank: int, number: str) -> None:
    """Make rank `number` wait for ever in its third step."""
    from ftsys.train.trainer.trainer import Trainer

    step = Trainer.training_step

    def waits_for_ever(trainer: Trainer, *arguments: Any, **others: Any) -> Any:
        if trainer.state.global_step == 2 and rank == int(number):
            time.sleep(10 * PATIENCE)
        return step(trainer, *arguments, **others)

    Trainer.training_step = waits_for_ever  # type: ignore[method-assign, assignment]  # this process is one rank


def test_a_run_that_hangs_ends_with_76_and_the_stack_of_the_rank_that_is_waited_for(project: Path) -> None:
    attempt = start(project, 2, ("--train.watchdog_seconds", "15"), (hang_in_step, "1"))
    assert attempt.statuses(PATIENCE) == [76, 76], attempt.log()
    status = read_json(project / "run/status.json")
    assert (status["state"], status["exit"]) == ("hung", 76)
    assert "rank 1 hangs in phase 'train', step 2" in status["reason"]
    assert "in waits_for_ever" in status["reason"]
    assert "rank 0 hangs" not in status["reason"], status["reason"]
