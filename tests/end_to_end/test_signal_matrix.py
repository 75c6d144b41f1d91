"""TERM, INT or USR1 to one rank or to all, in every phase: all leave with 75, everything on disk is whole, and the same
command goes on to the very weights of the undisturbed run."""

import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.attempts import copy_project, finish, make_project, start
from tests.end_to_end.phases import linger, wait_until_reached

SIGNALS = ("TERM", "USR1", "INT")
TARGETS = ("one", "all")
PHASES = ("prepare", "set-up", "first step", "train", "evaluate", "save")
WORLDS = (2, 3)
LEAVE_SECONDS = 60.0
SHORT = {("TERM", "one", "prepare", 2), ("USR1", "all", "first step", 3), ("INT", "one", "train", 3)}
SHORT |= {("TERM", "all", "evaluate", 2), ("USR1", "one", "save", 2), ("TERM", "one", "set-up", 2)}
"""One case a row and a column; the other cases are long."""

CASES = [
    pytest.param(*case, id="-".join(map(str, case)), marks=[] if case in SHORT else [pytest.mark.long])
    for case in itertools.product(SIGNALS, TARGETS, PHASES, WORLDS)
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    return make_project(tmp_path_factory.mktemp("signals") / "project", minilm_folder)


@pytest.fixture(scope="module")
def undisturbed(project: Path) -> dict[int, bytes]:
    """The trained weights by the number of ranks; preparing the store as well."""
    return {ranks: finish(copy_project(project, f"whole-{ranks}"), ranks) for ranks in WORLDS}


@pytest.mark.parametrize(("name", "target", "phase", "ranks"), CASES)
def test_a_signal_ends_every_rank_with_everything_whole(
    project: Path, undisturbed: dict[int, bytes], name: str, target: str, phase: str, ranks: int
) -> None:
    folder = copy_project(project, f"{name}-{target}-{phase.replace(' ', '-')}-{ranks}")
    attempt = start(folder, ranks, prepare=(linger, phase))
    rank = ranks - 1
    for number in range(ranks) if phase == "prepare" else [rank]:
        wait_until_reached(attempt, number)
    for process in attempt.ranks if target == "all" else [attempt.ranks[rank]]:
        assert process.pid is not None
        os.kill(process.pid, getattr(signal, f"SIG{name}"))
    if phase == "prepare" and target == "one":  # they do not know each other yet: the launcher tells them
        attempt.ranks[rank].join(LEAVE_SECONDS)
        for process in attempt.ranks:
            process.terminate()
    statuses = attempt.statuses(LEAVE_SECONDS)
    assert statuses == [75] * ranks, f"{statuses}\n{attempt.log()}"
    assert "Traceback" not in attempt.log()
    assert _whole(folder)
    assert finish(folder, ranks) == undisturbed[ranks]


def signal_at_claim(rank: int, name: str) -> None:
    """In a rank: send itself a signal once it has claimed the run folder, which has no status yet."""
    from ftsys.train import run

    claim = run.claim_run_folder

    def claiming(*args: Any, **named: Any) -> Any:
        claimed = claim(*args, **named)
        if "rank" not in named:  # with it nothing is claimed
            os.kill(os.getpid(), getattr(signal, name))
        return claimed

    run.claim_run_folder = claiming


def test_a_claimed_folder_has_a_status(project: Path, undisturbed: dict[int, bytes]) -> None:
    folder = copy_project(project, "claimed")
    attempt = start(folder, 1, prepare=(signal_at_claim, "SIGTERM"))
    assert attempt.statuses(LEAVE_SECONDS) == [75], attempt.log()
    status = json.loads((folder / "run/status.json").read_text())
    assert (status["state"], status["exit"]) == ("stopped", 75)
    assert finish(folder, WORLDS[0]) == undisturbed[WORLDS[0]]


def test_a_signal_after_the_last_step_loses_no_training(project: Path, undisturbed: dict[int, bytes]) -> None:
    folder, words = copy_project(project, "after"), ("--train.save_every", "never")
    attempt = start(folder, 2, words, (linger, "finish"))
    wait_until_reached(attempt, 1)
    assert attempt.ranks[1].pid is not None
    os.kill(attempt.ranks[1].pid, signal.SIGTERM)
    assert attempt.statuses(LEAVE_SECONDS) == [75, 75], attempt.log()
    assert [path.name for path in (folder / "run/checkpoints").iterdir()] == ["step-000012"]
    assert _whole(folder)
    assert finish(folder, 2, words) == undisturbed[2]


def _whole(folder: Path) -> bool:
    """Whether nothing half-made lies there and every byte of every checkpoint is right."""
    from ftsys.train.checkpoint.catalog import verify_checkpoint

    checkpoints = sorted((folder / "run/checkpoints").glob("*"))
    assert not [path for path in checkpoints if not path.name.removeprefix("step-").isdigit()], checkpoints
    return all(verify_checkpoint(path) == [] for path in checkpoints)
