"""Tests which checkpoint is taken, by name and by age, and what is said about the others."""

import json
from pathlib import Path

import pytest
import torch

from ftsys.errors import CheckpointError
from ftsys.train.checkpoint.catalog import (
    Checkpoint,
    clean_leftovers,
    complete_checkpoints,
    named_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    verify_checkpoint,
)
from ftsys.train.checkpoint.manifest import part_of_file, read_manifest, write_manifest
from ftsys.train.checkpoint.training_state import FullState
from ftsys.train.checkpoint.writer import save_checkpoint
from tests.unit.train.checkpoint.test_catalog import save


def rewritten(path: Path, **changed: object) -> Path:
    """Write a sealed manifest with other facts; None takes a fact out."""
    facts = {name: value for name, value in (read_manifest(path) | changed).items() if value is not None}
    facts.pop("format")
    (path / "manifest.json").unlink()
    write_manifest(path, facts)
    return path


def test_a_checkpoint_is_taken_by_name(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    save(tmp_path, 6)
    assert named_checkpoint(path, "mine") == Checkpoint.open(path)


def test_a_named_checkpoint_that_is_damaged_or_anothers_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    with pytest.raises(CheckpointError, match=r"belongs to another run: its identity is 'mine', this run's is 'other'"):
        named_checkpoint(path, "other")
    (path / "state.json").write_bytes(b" " + (path / "state.json").read_bytes()[1:])
    with pytest.raises(CheckpointError, match=r"train\.resume='.*' is damaged: .*state\.json.* Name another"):
        named_checkpoint(path, "mine")


def test_a_named_checkpoint_can_be_checked_by_the_sizes_of_its_files_alone(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    state = path / "state.json"
    state.write_bytes(b" " + state.read_bytes()[1:])
    assert named_checkpoint(path, "mine", contents=False) == Checkpoint.open(path)
    state.write_bytes(state.read_bytes()[1:])
    with pytest.raises(CheckpointError, match=r"is damaged: .*state\.json has \d+ bytes"):
        named_checkpoint(path, "mine", contents=False)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"step": "5"}, "is not a checkpoint's manifest"),
        ({"identity": None}, "is not a checkpoint's manifest"),
        ({"files": {}}, "does not list 'state.json'"),
    ],
)
def test_a_sealed_file_that_is_no_manifest_of_a_checkpoint_is_refused(
    tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    path = rewritten(save(tmp_path, 5), **changed)
    assert said in verify_checkpoint(path)[0]
    assert complete_checkpoints(tmp_path) == []


def test_a_copy_under_a_name_of_its_own_is_opened(tmp_path: Path) -> None:
    path = save(tmp_path, 5).rename(tmp_path / "the-best")
    assert Checkpoint.open(path).step == 5


def test_the_newest_is_said_with_its_reason(tmp_path: Path) -> None:
    said: list[str] = []
    save(tmp_path, 4)
    path = save(tmp_path, 5, attempt=3)
    assert newest_checkpoint(tmp_path, "mine", attempt=3, say=said.append) == Checkpoint.open(path)
    assert said == [
        f"resuming from {path}: step 5 of attempt 3, the newest complete one of 2; all its bytes match the manifest"
    ]


def test_nothing_is_said_about_a_folder_without_checkpoints(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "step-000001.tmp-1").mkdir()
    (tmp_path / "step-000002").touch()
    assert newest_checkpoint(tmp_path, "mine", say=said.append) is None
    assert said == []


def test_of_one_attempt_the_later_step_is_newer(tmp_path: Path) -> None:
    for step in (30, 20, 10):
        save(tmp_path, step)
    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == [10, 20, 30]
    assert [path.name for path in prune_checkpoints(tmp_path, keep=1)] == ["step-000010", "step-000020"]


def test_one_checkpoint_is_kept_at_least(tmp_path: Path) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    assert [path.name for path in prune_checkpoints(tmp_path, keep=0)] == ["step-000001"]
    assert list(tmp_path.iterdir()) == [newest]


def test_a_folder_that_is_not_there_has_no_leftovers(tmp_path: Path) -> None:
    clean_leftovers(tmp_path / "none", 1)
    assert list(tmp_path.iterdir()) == []
    assert complete_checkpoints(tmp_path / "none") == prune_checkpoints(tmp_path, keep=1) == []


def test_moments_whose_names_begin_alike_are_told_apart(tmp_path: Path) -> None:
    state = FullState(
        weights={"w": torch.zeros(2), "sq.w": torch.zeros(1)},
        moments={"exp": {"w": torch.ones(2), "sq.w": torch.ones(1)}, "exp.sq": {"w": torch.ones(2) * 2}},
    )
    found = Checkpoint.open(save_checkpoint(tmp_path, 1, state, {}, "mine", 1)).load_state()
    assert found.moments["exp.sq"]["w"].tolist() == [2.0, 2.0]
    assert found.moments["exp"]["w"].tolist() == [1.0, 1.0]


def test_parts_of_a_file_are_told_from_other_files() -> None:
    pattern = part_of_file("weights.safetensors")
    assert pattern.fullmatch("weights-00001-of-00002.safetensors")
    for other in ("weights.safetensors", "weights-00001-of-00002xsafetensors", "optimizer-00001-of-00002.safetensors"):
        assert pattern.fullmatch(other) is None


def test_the_facts_of_a_state_are_in_one_file(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    facts = json.loads((path / "state.json").read_text())["full_state"]
    assert (facts["buffers"], facts["moments"]) == (["empty", "mask", "seen"], ["exp_avg", "exp_avg_sq"])
    assert facts["weights_file"] == "weights.safetensors"
