"""`kill -9` of any rank at any moment costs the steps since the last checkpoint, and nothing else."""

import os
import shutil
from pathlib import Path

import pytest

from tests.end_to_end.attempts import finish, make_project
from tests.end_to_end.kill_phases import LONGER, kill_in_phases, kill_launched
from tests.end_to_end.kill_ranks import kill_until
from tests.end_to_end.phases import ALONE, TOGETHER

LONG = [pytest.mark.long, pytest.mark.timeout(7200)]


ZERO_2 = ("--engine.zero_stage", "2")


@pytest.mark.parametrize(
    ("count", "words"), [(5, ()), pytest.param(200, (), marks=LONG), pytest.param(20, ZERO_2, marks=LONG)]
)
def test_killed_runs_end_with_the_same_weights(
    tmp_path: Path, minilm_folder: Path, count: int, words: tuple[str, ...]
) -> None:
    seed = int(os.environ.get("FTSYS_KILL_SEED", "0"))
    tally = kill_until(count, make_project(tmp_path / "project", minilm_folder), seed, words)
    assert tally.kills == count


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_rank_killed_in_each_phase_is_named(tmp_path: Path, minilm_folder: Path) -> None:
    tally = kill_in_phases(3, make_project(tmp_path / "project", minilm_folder, LONGER))
    assert tally.kills == dict.fromkeys((*ALONE, *TOGETHER), 3)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_rank_killed_in_its_start_up_is_named_by_ftlaunch(tmp_path: Path, minilm_folder: Path) -> None:
    tally = kill_launched(5, make_project(tmp_path / "project", minilm_folder, LONGER))
    assert tally.kills.total() >= 5


def test_a_run_killed_after_its_last_checkpoint_takes_no_step_more(tmp_path: Path, minilm_folder: Path) -> None:
    """The last of `max_steps` lies within an epoch: transformers' own Trainer would take a thirteenth step."""
    project = make_project(tmp_path / "project", minilm_folder)
    weights = finish(project, 1)
    for name in ("status.json", "results.json"):
        (project / "run" / name).unlink()
    shutil.rmtree(project / "run/model")
    assert finish(project, 1) == weights
    assert '"step": 13' not in (project / "run/metrics.jsonl").read_text()
