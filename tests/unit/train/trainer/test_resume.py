"""The checkpoint to resume is looked at before a run folder is claimed: its rows, its bytes, and where it lies."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftsys.config import RunConfig, build_run, run_identity
from ftsys.errors import CheckpointError, ConfigError, RunFolderError
from ftsys.run_folder.report_facts import DataFacts, write_data_facts
from ftsys.train.checkpoint.writer import save_checkpoint
from ftsys.train.trainer.checkpointers.best import best_checkpoint
from ftsys.train.trainer.checkpointers.resume import check_resume, checkpoint_to_resume
from ftsys.train.trainer.checkpointers.run_folder import Attempt
from tests.unit.train.checkpoint.test_catalog import full_state

OLD, NEW = "a" * 64, "b" * 64


def run_with(folder: Path, resume: object = "auto", **train: Any) -> RunConfig:
    return build_run({"output_dir": str(folder), "task": {"name": "mrpc"}, "train": {"resume": str(resume), **train}})


def save(folder: Path, step: int, store: str | None, attempt: int = 1, documents: Any = None, **train: Any) -> Path:
    extra = {} if store is None else {"store": store}
    root, identity = folder / "checkpoints", run_identity(run_with(folder, **train))
    return save_checkpoint(root, step, full_state(), extra, identity, attempt, documents)


def check(run: RunConfig, store: str, overwrite: bool = False) -> None:
    facts: Any = SimpleNamespace(fingerprint=store)
    check_resume(run, facts, overwrite)


def test_a_checkpoint_of_the_same_rows_is_resumed(tmp_path: Path) -> None:
    path = save(tmp_path, 3, NEW)
    check(run_with(tmp_path), NEW)
    check(run_with(tmp_path, path), NEW)
    check(run_with(tmp_path / "nothing"), NEW)


@pytest.mark.parametrize("named", [False, True])
def test_a_checkpoint_of_other_rows_is_refused_whatever_data_json_says(tmp_path: Path, named: bool) -> None:
    path = save(tmp_path, 3, OLD)
    write_data_facts(tmp_path, DataFacts("stores/x", NEW, {}))
    with pytest.raises(RunFolderError, match=r"on other data: .*\(store a{16} then, b{16} now\)"):
        check(run_with(tmp_path, path if named else "auto"), NEW)
    check(run_with(tmp_path, "never"), NEW)
    check(run_with(tmp_path), NEW, overwrite=True)


@pytest.mark.parametrize("named", [False, True])
def test_a_checkpoint_of_an_older_version_has_the_rows_of_data_json(tmp_path: Path, named: bool) -> None:
    path = save(tmp_path, 3, None)
    run = run_with(tmp_path, path if named else "auto")
    check(run, NEW)
    write_data_facts(tmp_path, DataFacts("stores/x", OLD, {}))
    check(run, OLD)
    with pytest.raises(RunFolderError, match="on other data"):
        check(run, NEW)


def test_a_copy_elsewhere_does_not_ask_files_that_happen_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("rows of somebody")
    copied = save(tmp_path / "run", 3, None).rename(tmp_path / "run/step-000003")
    check(run_with(tmp_path / "run", copied), NEW)


def test_the_checkpoint_that_is_chosen_in_the_end_is_looked_at(tmp_path: Path) -> None:
    save(tmp_path, 9, OLD)
    newest = save(tmp_path, 3, NEW, attempt=2)
    run = run_with(tmp_path)
    attempt = Attempt(tmp_path / "checkpoints", run_identity(run), 3, keep=2, store=NEW)
    check(run, NEW)
    assert checkpoint_to_resume(run, attempt, print) == str(newest)
    weights = newest / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(RunFolderError, match="on other data"):
        checkpoint_to_resume(run, attempt, print)
    (newest / "state.json").write_bytes(b"x" * (newest / "state.json").stat().st_size)
    with pytest.raises(RunFolderError, match="on other data"):
        check(run, NEW)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_named_checkpoint_is_verified_before_anything_is_removed(tmp_path: Path, overwrite: bool) -> None:
    run = run_with(tmp_path / "run", save(tmp_path, 3, NEW))
    seeded = run.model_copy(update={"train": run.train.model_copy(update={"seed": 7})})
    with pytest.raises(CheckpointError, match="belongs to another run"):
        check(seeded, NEW, overwrite)
    check(run, NEW, overwrite)
    weights = tmp_path / "checkpoints/step-000003/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CheckpointError, match="is damaged"):
        check(run, NEW, overwrite)
    with pytest.raises(CheckpointError, match="step-000009"):
        check(run_with(tmp_path / "run", tmp_path / "step-000009"), NEW, overwrite)


def test_overwrite_is_refused_where_it_would_remove_the_named_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path / "run", 3, NEW)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(path)
    for named in (path, elsewhere):
        check(run_with(tmp_path / "run", named), NEW)
        with pytest.raises(ConfigError, match=r"is one of the checkpoints in '.*run/checkpoints', which --overwrite"):
            check(run_with(tmp_path / "run", named), NEW, overwrite=True)
    check(run_with(tmp_path / "another", path), NEW, overwrite=True)


BEST: dict[str, Any] = {"keep_best": "f1"}


def save_after_best(folder: Path, best: str | None) -> Path:
    """Save step 4 of a run whose best step was 2."""
    state = {"global_step": 4, "best_global_step": 2, "best_model_checkpoint": best}
    return save(folder, 4, NEW, documents={"trainer_state.json": state}, **BEST)


def test_the_best_checkpoint_is_found_before_the_training(tmp_path: Path) -> None:
    beside, elsewhere = save(tmp_path / "one", 2, NEW, **BEST), save(tmp_path / "two", 2, NEW, **BEST)
    asked = save_after_best(tmp_path / "one", "where the folder was before")
    check(run_with(tmp_path / "new", asked, **BEST), NEW)
    assert best_checkpoint(asked, 2, str(elsewhere)) == beside
    link = tmp_path / "link"
    link.symlink_to(asked)
    assert best_checkpoint(link, 2, None) == beside
    asked = save_after_best(tmp_path / "three", str(elsewhere))
    check(run_with(tmp_path / "new", asked, **BEST), NEW)
    assert best_checkpoint(asked, 2, str(elsewhere)) == elsewhere


@pytest.mark.parametrize("best", [None, "gone"])
def test_a_checkpoint_without_the_best_one_is_refused(tmp_path: Path, best: str | None) -> None:
    asked = save_after_best(tmp_path, best)
    with pytest.raises(CheckpointError, match=r"the run ends with its best model, so far that of step 2, but .*Put"):
        check(run_with(tmp_path / "new", asked, **BEST), NEW)


def test_a_checkpoint_whose_best_one_is_damaged_is_refused(tmp_path: Path) -> None:
    best, asked = save(tmp_path, 2, NEW, **BEST), save_after_best(tmp_path, None)
    (best / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step 2, but .*weights\.safetensors has 0 bytes"):
        check(run_with(tmp_path / "new", asked, **BEST), NEW)


def test_without_keep_best_the_best_checkpoint_need_not_be_there(tmp_path: Path) -> None:
    state = {"global_step": 4, "best_global_step": 2, "best_model_checkpoint": None}
    asked = save(tmp_path, 4, NEW, documents={"trainer_state.json": state})
    check(run_with(tmp_path / "new", asked), NEW)
