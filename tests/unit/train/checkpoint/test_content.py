"""Tests that a checkpoint with right hashes and wrong content is damage, in `ftsys verify` and where it is resumed.

Anybody who may write the folder can make its hashes right again.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftsys.config import build_run, run_identity
from ftsys.errors import CheckpointError
from ftsys.files.integrity import written_file
from ftsys.run_folder.layout import CHECKPOINTS
from ftsys.train.checkpoint.catalog import Checkpoint, complete_checkpoints, newest_checkpoint, verify_checkpoint
from ftsys.train.checkpoint.manifest import MANIFEST, read_manifest, write_manifest
from ftsys.train.checkpoint.training_state import joined
from ftsys.train.checkpoint.writer import save_checkpoint
from ftsys.train.trainer.checkpointers.resume import check_resume
from ftsys.train.verify import verify
from tests.unit.train.checkpoint.test_catalog import full_state, save

Edit = Callable[[dict[str, Any]], object]


def resealed(path: Path, name: str, content: bytes) -> Path:
    """Replace a file of a checkpoint, and make the manifest right again."""
    (path / name).write_bytes(content)
    facts = read_manifest(path)
    facts["files"][name] = written_file(path / name)
    return relisted(path, facts["files"])


def relisted(path: Path, files: dict[str, Any]) -> Path:
    facts = read_manifest(path) | {"files": files}
    (path / MANIFEST).unlink()
    write_manifest(path, facts)
    return path


def edited(path: Path, edit: Edit) -> Path:
    state = json.loads((path / "state.json").read_text())
    edit(state)
    return resealed(path, "state.json", json.dumps(state).encode())


WRONG = {
    "a list": ("state.json", b"[]"),
    "no JSON": ("state.json", b"{"),
    "an empty object": ("state.json", b"{}"),
    "no weights": ("weights.safetensors", b"xxx"),
    "an empty file": ("optimizer.safetensors", b""),
    "a huge header": ("weights.safetensors", b"\xff" * 64),
    "a list of trainer states": ("trainer_state.json", b"[]"),
    "a step as text": ("trainer_state.json", b'{"global_step": "3"}'),
}
TRAINER = {"global_step": 2, "best_metric": float("inf"), "log_history": [{"loss": float("nan"), "step": 1}]}
WRONG_VALUES: list[tuple[str, Any]] = [
    *(("best_metric", [[]]), ("log_history", 0), ("log_history", [1]), ("stateful_callbacks", 7), ("total_flos", "x")),
    *(("train_batch_size", "x"), ("logging_steps", "x"), ("eval_steps", []), ("save_steps", "x"), ("epoch", {})),
    *(("best_global_step", "x"), ("best_model_checkpoint", 3), ("stateful_callbacks", {"A": 1}), ("global_step", -1)),
    *(("stateful_callbacks", {"A": {"args": 3}}), ("max_steps", None), ("trial_params", 1), ("num_train_epochs", "x")),
    *(("is_world_process_zero", "x"), ("num_input_tokens_seen", 0.5), ("trial_name", 1)),
]
EDITS: dict[str, Edit] = {
    "extra": lambda state: state.update(extra=[]),
    "no extra": lambda state: state.pop("extra"),
    "no facts": lambda state: state.update(full_state={}),
    "numbers": lambda state: state["full_state"].pop("numbers"),
    "numbers as text": lambda state: state["full_state"].update(numbers={"a.weight": {"step": "7"}}),
    "groups": lambda state: state["full_state"].update(groups=[{"lr": 0.1}]),
    "counters": lambda state: state["full_state"].update(counters=None),
    "a negative shape": lambda state: state["full_state"].update(shapes={"a.weight": [-2, -3]}),
    "a file elsewhere": lambda state: state["full_state"].update(weights_file="../weights.safetensors"),
    "a number as a file": lambda state: state["full_state"].update(weights_file=7),
}


@pytest.mark.parametrize(("name", "content"), WRONG.values(), ids=WRONG)
def test_a_file_that_holds_something_else_is_damage(tmp_path: Path, name: str, content: bytes) -> None:
    sound, path = save(tmp_path, 1), resealed(save(tmp_path, 2), name, content)
    said: list[str] = []
    assert [str(path / name) in line for line in verify_checkpoint(path)] == [True]
    taken = newest_checkpoint(tmp_path, "mine", say=said.append)
    assert taken is not None
    assert (taken.path, str(path / name) in said[0]) == (sound, True)


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES)
def test_a_wrong_value_of_the_trainers_state_is_damage(tmp_path: Path, key: str, value: Any) -> None:
    path = resealed(save(tmp_path, 2), "trainer_state.json", json.dumps(TRAINER).encode())
    assert verify_checkpoint(path) == []
    resealed(path, "trainer_state.json", json.dumps(TRAINER | {key: value}).encode())
    (line,) = verify_checkpoint(path)
    assert line.startswith(f"{path}/trainer_state.json cannot be read: {key}")


def test_a_trainers_state_that_the_list_lacks_is_read_by_transformers_and_checked(tmp_path: Path) -> None:
    path = save(tmp_path, 2)
    (path / "trainer_state.json").write_text("{}")
    assert "trainer_state.json cannot be read: global_step" in verify_checkpoint(path)[0]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_state_in_an_encoding_that_transformers_does_not_read_is_damage(tmp_path: Path, encoding: str) -> None:
    path = resealed(save(tmp_path, 2), "trainer_state.json", json.dumps(TRAINER).encode(encoding))
    assert "trainer_state.json cannot be read" in verify_checkpoint(path)[0]


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_value_of_another_type_is_damage(tmp_path: Path, edit: Edit) -> None:
    path = edited(save(tmp_path, 1), edit)
    assert ["state.json" in line for line in verify_checkpoint(path)] == [True]
    with pytest.raises(CheckpointError, match=r"state.json (cannot be read: .*take another checkpoint|names it)"):
        Checkpoint.open(path).load_state()


def test_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    extra = {"scheduler": {"best": float("inf")}, "deep": [float("nan"), 1e-300, 2**70]}
    path = save_checkpoint(tmp_path, 1, full_state(), extra, "mine", 1)
    assert verify_checkpoint(path) == []
    assert repr(Checkpoint.open(path).extra) == repr(dict(sorted(extra.items())))


@pytest.mark.parametrize("resume", ["auto", "name"])
def test_a_run_does_not_resume_it(tmp_path: Path, resume: str) -> None:
    run = build_run({"output_dir": str(tmp_path), "task": {"name": "mrpc"}, "train": {"resume": "auto"}})
    path = save_checkpoint(tmp_path / CHECKPOINTS, 1, full_state(), {}, run_identity(run), 1)
    resealed(path, "state.json", b"[]")
    store: Any = type("Opened", (), {"fingerprint": "f" * 64})
    if resume == "auto":
        check_resume(run, store, overwrite=False)
        return
    named = run.model_copy(update={"train": run.train.model_copy(update={"resume": str(path)})})
    with pytest.raises(CheckpointError, match=r"is damaged: .*state.json cannot be read"):
        check_resume(named, store, overwrite=False)


@pytest.mark.parametrize("lost", ["weights.safetensors", "optimizer.safetensors"])
def test_a_list_without_weights_or_optimizer_is_no_checkpoint(tmp_path: Path, lost: str) -> None:
    path = save(tmp_path, 1)
    files = read_manifest(path)["files"]
    relisted(path, {name: entry for name, entry in files.items() if name != lost})
    assert f"does not list '{lost}'" in verify_checkpoint(path)[0]
    assert complete_checkpoints(tmp_path) == []


@pytest.mark.parametrize(
    "parts",
    [("00001-of-00002",), ("00001-of-00003", "00003-of-00003"), ("00001-of-00002", "00002-of-00003"), ("1-of-1",)],
)
def test_a_part_that_the_list_lacks_is_damage(tmp_path: Path, parts: tuple[str, ...]) -> None:
    path = save(tmp_path, 1)
    files = read_manifest(path)["files"]
    entry = files.pop("weights.safetensors")
    relisted(path, files | {f"weights-{part}.safetensors": entry for part in parts})
    assert "does not list all parts of 'weights.safetensors'" in verify_checkpoint(path)[0]


@pytest.mark.parametrize("name", ["optimizer.pt", "sub/rng_state.pth", "sitecustomize.py"])
def test_a_file_that_the_manifest_lacks_is_reported_and_does_not_keep_a_run_from_resuming(
    tmp_path: Path, name: str
) -> None:
    path = save(tmp_path, 1)
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).touch()
    assert verify_checkpoint(path) == [f"{path / name} is not in manifest.json: remove it, or keep it elsewhere"]
    assert newest_checkpoint(tmp_path, "mine", say=lambda _: None) is not None


def test_what_a_running_save_has_written_is_no_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / CHECKPOINTS, 1)
    for name in ("step-000002.tmp-1", "step-000001.old", "step-000003.gone"):
        (tmp_path / CHECKPOINTS / name).mkdir()
    assert verify(str(tmp_path)) == 0
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("shapes", [{}, {"a": [3]}, {"a": [2, 3]}])
def test_parts_that_are_not_the_whole_are_refused(shapes: dict[str, list[int]]) -> None:
    parts = {"a[0:2]": torch.ones(2), "a[2:4]": torch.ones(2)}
    assert joined(parts, {"a": [2, 2]})["a"].shape == (2, 2)
    with pytest.raises(CheckpointError, match=r"'a' has 4 elements in its files.*take another checkpoint"):
        joined(parts, shapes)
