"""A checkpoint is whole or not there, says what is wrong with it, and holds exactly what was put in."""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftsys.errors import CheckpointError, RunFolderError, StorageError
from ftsys.train.checkpoint.catalog import (
    Checkpoint,
    clean_leftovers,
    complete_checkpoints,
    newest_checkpoint,
    prune_checkpoints,
    verify_checkpoint,
)
from ftsys.train.checkpoint.training_state import FullState
from ftsys.train.checkpoint.writer import save_checkpoint

EXTRA = {"trainer": {"epoch": 1.5, "best": None}, "plan": [1, 2], "rate": 0.1 + 0.2}


def full_state(scale: float = 1.0, elements: int = 6) -> FullState:
    """A state with odd values: a scalar, an empty tensor, NaN, -0.0, other types."""
    weight = torch.arange(elements, dtype=torch.float32).reshape(2, -1) * scale
    return FullState(
        weights={"a.weight": weight.t(), "a.bias": torch.tensor([float("nan"), -0.0]), "wide": torch.ones(1).double()},
        buffers={"seen": torch.tensor(3), "empty": torch.zeros(0, 4), "mask": torch.tensor([True, False])},
        moments={"exp_avg": {"a.weight": weight.t() / 3}, "exp_avg_sq": {"a.weight": weight.t() ** 2}},
        numbers={"a.weight": {"step": 7.0}},
        groups=[{"lr": 0.1, "betas": [0.9, 0.999], "parameters": ["a.weight"]}],
        counters={"global_steps": 7, "loss_scale": {"cur_scale": 65536.0}},
    )


def save(root: Path, step: int, attempt: int = 1, identity: str = "mine") -> Path:
    return save_checkpoint(root, step, full_state(step), EXTRA, identity, attempt)


def equal_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    same_kind = one.dtype == other.dtype and one.shape == other.shape
    return same_kind and one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 345, full_state(), EXTRA, "mine", 2)
    checkpoint = Checkpoint.open(path)
    assert path.name == "step-000345"
    assert (checkpoint.step, checkpoint.attempt, checkpoint.identity) == (345, 2, "mine")
    assert checkpoint.extra == EXTRA
    saved, back = full_state(), checkpoint.load_state()
    for mine, theirs in (
        (saved.weights, back.weights),
        (saved.buffers, back.buffers),
        *((saved.moments[key], back.moments[key]) for key in saved.moments),
    ):
        assert mine.keys() == theirs.keys()
        assert all(equal_bytes(mine[name], theirs[name]) for name in mine)
    assert back.moments.keys() == saved.moments.keys()
    assert (back.numbers, back.groups, back.counters) == (saved.numbers, saved.groups, saved.counters)


def test_the_files_are_plain_safetensors_and_json(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    assert sorted(file.name for file in path.iterdir()) == [
        "manifest.json", "optimizer.safetensors", "state.json", "weights.safetensors",
    ]  # fmt: skip
    assert load_file(path / "weights.safetensors")["a.weight"].shape == (3, 2)
    assert set(load_file(path / "optimizer.safetensors")) == {"exp_avg.a.weight", "exp_avg_sq.a.weight"}
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["files"]["state.json"]["bytes"] == (path / "state.json").stat().st_size
    assert json.loads((path / "state.json").read_text())["extra"] == EXTRA


def test_documents_are_part_of_it(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, full_state(), EXTRA, "mine", 1, documents={"trainer_state.json": {"epoch": 1}})
    assert json.loads((path / "trainer_state.json").read_text()) == {"epoch": 1}
    (path / "trainer_state.json").write_text("{}")
    assert "trainer_state.json has 2 bytes" in verify_checkpoint(path)[0]


def test_values_that_no_file_can_hold_are_refused(tmp_path: Path) -> None:
    former = save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"state\.json can only hold JSON"):
        save_checkpoint(tmp_path, 2, full_state(), {"path": Path("x")}, "mine", 1)
    odd = FullState(weights={"odd": torch.zeros(2, dtype=torch.complex64)})
    with pytest.raises(CheckpointError, match=r"'odd' has type 'complex64'"):
        save_checkpoint(tmp_path, 2, odd, {}, "mine", 1)
    assert list(tmp_path.iterdir()) == [former]


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, full_state(elements=200), EXTRA, "mine", 1)
    assert verify_checkpoint(path) == []
    files = sorted(path.iterdir())
    generator = random.Random(0)
    for _ in range(500):
        file = generator.choice(files)
        data = bytearray(file.read_bytes())
        where = generator.randrange(len(data))
        data[where] ^= 1 << generator.randrange(8)
        whole = file.read_bytes()
        file.write_bytes(data)
        assert len(verify_checkpoint(path)) == 1, f"byte {where} of {file.name}"
        file.write_bytes(whole)
    assert verify_checkpoint(path) == []


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_missing_or_short_file_is_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1)
    os.truncate(path / name, (path / name).stat().st_size - 1)
    assert name in verify_checkpoint(path)[0]
    assert complete_checkpoints(tmp_path) == []
    (path / name).unlink()
    assert name in verify_checkpoint(path)[0]


def test_white_space_in_the_manifest_is_damage(tmp_path: Path) -> None:
    manifest = save(tmp_path, 1) / "manifest.json"
    manifest.write_text(manifest.read_text().replace("\n ", "\n\t"))
    assert verify_checkpoint(manifest.parent) == [f"{manifest} is damaged: it does not match its own checksum"]


def test_a_renamed_checkpoint_is_not_another_step(tmp_path: Path) -> None:
    path = save(tmp_path, 1).rename(tmp_path / "step-000009")
    assert "holds step 1" in verify_checkpoint(path)[0]


def test_the_newest_whole_one_is_taken(tmp_path: Path) -> None:
    said: list[str] = []
    assert newest_checkpoint(tmp_path / "none", "mine", say=said.append) is None
    save(tmp_path, 99_999)
    good, bad = save(tmp_path, 100_000), save(tmp_path, 1_000_000)
    weights = bytearray((bad / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (bad / "weights.safetensors").write_bytes(weights)
    (tmp_path / "step-2000000").mkdir()
    taken = newest_checkpoint(tmp_path, "mine", attempt=2, say=said.append)
    assert taken is not None
    assert taken.path == good
    assert len(said) == 3
    assert "step-2000000" in said[0]
    assert "not a complete checkpoint" in said[0]
    assert f"{bad / 'weights.safetensors'} is damaged" in said[1]
    assert f"resuming from {good}: step 100000 of attempt 1" in said[2]


def test_nothing_whole_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    (save(tmp_path, 1) / "state.json").unlink()
    assert newest_checkpoint(tmp_path, "mine", say=said.append) is None
    assert said[-1] == f"no complete checkpoint is left in {tmp_path}: starting from step 0"


def test_a_later_attempt_is_newer_whatever_its_step(tmp_path: Path) -> None:
    save(tmp_path, 40, attempt=1)
    newer = save(tmp_path, 30, attempt=2)
    taken = newest_checkpoint(tmp_path, "mine", say=lambda _: None)
    assert taken is not None
    assert taken.path == newer


def test_another_runs_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path, 1, identity="theirs")
    with pytest.raises(CheckpointError, match=r"'theirs'.*'mine'.*train\.resume = \"never\""):
        newest_checkpoint(tmp_path, "mine")


def test_a_cut_off_former_life_is_turned_away(tmp_path: Path) -> None:
    newer = save(tmp_path, 5, attempt=2)
    with pytest.raises(RunFolderError, match="attempt 2"):
        save(tmp_path, 6, attempt=1)
    with pytest.raises(RunFolderError, match="attempt 2"):
        newest_checkpoint(tmp_path, "mine", attempt=1)
    assert list(tmp_path.iterdir()) == [newer]


def test_the_same_step_is_replaced_whole(tmp_path: Path) -> None:
    save(tmp_path, 5, attempt=1)
    save_checkpoint(tmp_path, 5, full_state(), {"life": 2}, "mine", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000005"]
    assert complete_checkpoints(tmp_path)[0].extra == {"life": 2}


def test_leftovers_of_the_dead_are_cleaned(tmp_path: Path) -> None:
    whole = save(tmp_path, 1)
    for name in ("step-000002.tmp-1", "step-000003.tmp-2", "step-000004.tmp-3", "step-000001.old", "step-000009.gone"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    clean_leftovers(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", whole.name, "step-000004.tmp-3"]


@pytest.mark.parametrize("link", [False, True])
def test_a_checkpoint_set_aside_comes_back(tmp_path: Path, link: bool) -> None:
    save(tmp_path, 1).rename(tmp_path / "step-000001.old")
    if link:
        (tmp_path / "step-000001").symlink_to("nowhere")
    (tmp_path / "step-000001.tmp-1").mkdir()
    clean_leftovers(tmp_path, 1)
    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == [1]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step)
    (tmp_path / "step-000006" / "state.json").unlink()
    removed = prune_checkpoints(tmp_path, keep=2, best=2)
    assert [path.name for path in removed] == ["step-000001", "step-000003", "step-000006"]
    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == [2, 4, 5]
    assert len(list(tmp_path.iterdir())) == 3


def test_nothing_is_removed_without_a_whole_one(tmp_path: Path) -> None:
    (save(tmp_path, 1) / "state.json").unlink()
    assert prune_checkpoints(tmp_path, keep=1) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("elements", [30_000, 80_000])
def test_a_full_disk_leaves_the_former_checkpoint(small_disk: Path, elements: int) -> None:
    former = save(small_disk, 1)
    with pytest.raises(StorageError, match="the disk is full"):
        save_checkpoint(small_disk, 2, full_state(elements=elements), EXTRA, "mine", 1)
    assert list(small_disk.iterdir()) == [former]
    assert verify_checkpoint(former) == []
    assert save(small_disk, 2).exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Not a directory"):
        save(tmp_path / "file" / "checkpoints", 1)


def test_loaded_tensors_never_write_to_the_file(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    state = Checkpoint.open(path).load_state()
    state.weights["a.weight"].fill_(9)
    assert verify_checkpoint(path) == []
    shutil.rmtree(path)
    assert state.weights["a.weight"].sum() == 54


def test_a_link_to_a_checkpoint_is_read_and_pruned_but_its_target_stays(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    save(elsewhere, 1)
    save(root, 5)
    (root / "step-000001").symlink_to(elsewhere / "step-000001")
    (root / "step-000002").symlink_to(tmp_path / "nowhere")
    (root / "step-000003.old").symlink_to(elsewhere / "step-000001")
    (root / "step-000004.gone").symlink_to(elsewhere / "step-000001")
    assert [checkpoint.step for checkpoint in complete_checkpoints(root)] == [1, 5]
    prune_checkpoints(root, keep=1)
    clean_leftovers(root, 1)
    save(root, 6)
    prune_checkpoints(root, keep=1)
    assert [checkpoint.step for checkpoint in complete_checkpoints(root)] == [6]
    assert verify_checkpoint(elsewhere / "step-000001") == []


def test_a_checkpoint_is_saved_where_a_link_has_its_name(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    save(elsewhere, 1)
    root.mkdir()
    (root / "step-000001").symlink_to(elsewhere / "step-000001")
    (root / "step-000002").symlink_to(tmp_path / "nowhere")
    assert verify_checkpoint(save(root, 2)) == []
    path = save(root, 1)
    assert not path.is_symlink()
    assert verify_checkpoint(path) == verify_checkpoint(elsewhere / "step-000001") == []
