"""Runs of whole processes of which a rank hangs, or that another start takes the folder from."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.attempts import make_project, start
from tests.end_to_end.commands import read_json

PATIENCE = 120.0
ENDLESS = ("--train.max_steps", "1000000", "--train.eval_every", "never")


@pytest.fixture
def project(tmp_path: Path, minilm_folder: Path) -> Path:
    return make_project(tmp_path, minilm_folder)


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


def until(folder: Path, attempt: int) -> None:
    """Wait until so many attempts have begun, and the newest one trains."""
    log, deadline = folder / "run/metrics.jsonl", time.monotonic() + PATIENCE
    while not (log.exists() and f'"attempt": {attempt}' in log.read_text()):
        assert time.monotonic() < deadline, f"attempt {attempt} does not train after {PATIENCE} s"
        time.sleep(0.1)


def test_a_second_start_while_the_first_one_runs_takes_the_folder(project: Path) -> None:
    first = start(project, 1, ENDLESS)
    until(project, 1)
    second = start(project, 1, ENDLESS)
    assert first.statuses(PATIENCE) == [77]
    until(project, 2)
    assert read_json(project / "run/status.json")["attempt"] == 2
    second.ranks[0].terminate()
    assert second.statuses(PATIENCE) == [75], second.log()
