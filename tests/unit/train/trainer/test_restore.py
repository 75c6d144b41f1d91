"""A checkpoint that another version of transformers wrote is refused where this one could not read it."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from ftsys.errors import CheckpointError
from ftsys.files.json_safe import json_safe
from ftsys.train.checkpoint.catalog import Checkpoint, newest_checkpoint, verify_checkpoint
from ftsys.train.checkpoint.state_dict import export_state
from ftsys.train.checkpoint.writer import save_checkpoint
from ftsys.train.trainer.checkpointers.restore import import_whole, refuse_unknown_keys
from tests.unit.train.checkpoint.test_catalog import full_state
from tests.unit.train.checkpoint.test_state_dict import trained
from tests.unit.train.trainer.test_resume import NEW, check, run_with
from tests.unit.train.trainer.test_resume import save as save_in_run


def saved(root: Path, state: Any) -> Path:
    return save_checkpoint(root, 3, full_state(), {}, "mine", 1, {"trainer_state.json": state})


def whole_state() -> TrainerState:
    """Return a state with all that transformers writes."""
    state = TrainerState(epoch=0.5, global_step=3, best_metric=float("inf"), stateful_callbacks=[TrainerControl()])
    state.log_history.append({"loss": float("nan"), "step": 1})
    state.stateful_callbacks["Two"] = [TrainerControl().state(), TrainerControl().state()]
    state.logging_steps = 1.0
    state.trial_params = {"rate": 0.1}
    return state


@pytest.mark.parametrize("finite", [False, True])
def test_what_transformers_writes_is_read(tmp_path: Path, finite: bool) -> None:
    path = saved(tmp_path, json_safe(dataclasses.asdict(whole_state()), finite=finite))
    assert verify_checkpoint(path) == []
    refuse_unknown_keys(str(path))
    assert TrainerState.load_from_json(str(path / "trainer_state.json")).global_step == 3


def test_the_stock_file_of_a_new_state_is_read(tmp_path: Path) -> None:
    TrainerState(global_step=1).save_to_json(str(tmp_path / "state.json"))
    assert verify_checkpoint(saved(tmp_path, json.loads((tmp_path / "state.json").read_text()))) == []


def test_a_key_of_another_version_is_refused_and_the_checkpoint_is_not_skipped(tmp_path: Path) -> None:
    path = saved(tmp_path, {"global_step": 3, "pace": 1, "mood": 2})
    assert verify_checkpoint(path) == []
    assert newest_checkpoint(tmp_path, "mine", say=lambda _: None) is not None
    message = r"trainer_state.json has 'mood', 'pace', which transformers \d.*another version wrote.*Resume with that"
    with pytest.raises(CheckpointError, match=message):
        refuse_unknown_keys(path)


def test_a_checkpoint_without_the_trainers_state_is_told(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 3, full_state(), {}, "mine", 1)
    with pytest.raises(CheckpointError, match=r"trainer_state.json cannot be read"):
        refuse_unknown_keys(path)


def test_a_state_that_does_not_fit_is_told_with_its_folder(tmp_path: Path) -> None:
    model, optimizer = trained()
    state = export_state(model, optimizer)
    state.moments["exp_avg"]["norm.bias"] = torch.zeros(3)
    path = save_checkpoint(tmp_path, 3, state, {}, "mine", 1)
    trainer: Any = SimpleNamespace(model=model, model_wrapped=model, optimizer=optimizer)
    message = rf"{path} cannot be loaded: 'exp_avg' of 'norm.bias' in optimizer.safetensors has shape \(3,\) .* \(5,\)"
    with pytest.raises(CheckpointError, match=message):
        import_whole(trainer, Checkpoint.open(path))


def test_stock_checkpoints_are_left_to_transformers(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text('{"mood": 2}')
    for checkpoint in (None, True, str(tmp_path)):
        refuse_unknown_keys(checkpoint)


def test_a_named_one_is_refused_before_the_folder_is_claimed(tmp_path: Path) -> None:
    path = save_in_run(tmp_path, 3, NEW, documents={"trainer_state.json": {"global_step": 3, "mood": 2}})
    check(run_with(tmp_path), NEW)  # "auto" may still choose another one
    with pytest.raises(CheckpointError, match="has 'mood', which transformers"):
        check(run_with(tmp_path / "new", path), NEW)
