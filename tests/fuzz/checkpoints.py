"""Has the files of a small checkpoint for the fuzzing tests, and reads them."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from transformers import TrainerState

from ftsys.run_folder.layout import TRAINER_STATE
from ftsys.train.checkpoint.catalog import Checkpoint
from ftsys.train.trainer.checkpointers.restore import refuse_unknown_keys

LISTED = ("state.json", "weights.safetensors", "optimizer.safetensors")
CHECKPOINT: dict[str, Any] = {
    "format": 1,
    "step": 1,
    "attempt": 1,
    "identity": "i",
    "files": {name: {"bytes": 1, "sha256": "0"} for name in LISTED},
}
STATE = {
    "full_state": {
        "buffers": ["seen"],
        "moments": ["exp_avg"],
        "numbers": {"w": {"step": 7.0}},
        "groups": [{"lr": 0.1, "betas": [0.9, 0.999], "parameters": ["w"]}],
        "counters": {"global_steps": 7},
        "shapes": {"w": [2, 2]},
        "weights_file": "weights.safetensors",
    },
    "extra": {"scheduler": {"last_epoch": 7}, "scaler": None, "evaluation_owed": False},
}
TRAINER: dict[str, Any] = {
    "epoch": 1.5,
    "global_step": 3,
    "max_steps": 6,
    "logging_steps": 1.0,
    "eval_steps": 5,
    "save_steps": 5,
    "train_batch_size": 8,
    "total_flos": 1e9,
    "log_history": [{"loss": 0.5, "step": 1}],
    "best_metric": 0.5,
    "best_global_step": 2,
    "best_model_checkpoint": "step-000002",
    "is_world_process_zero": True,
    "stateful_callbacks": {"TrainerControl": {"args": {"should_save": False}, "attributes": {}}},
}
PARTS = {name: np.ones(2, np.float32) for name in ("w[0:2]", "w[2:4]", "seen")}
MOMENTS = {"exp_avg.w": np.ones((2, 2), np.float32)}
TENSORS = {"weights.safetensors": save(PARTS), "optimizer.safetensors": save(MOMENTS)}


def read_state(path: Path) -> object:
    """Read a checkpoint's state whose hashes are right, as anybody can make them."""
    checkpoint = Checkpoint(path.parent, 1, 1, "i", CHECKPOINT["files"])
    checkpoint.check_content()
    return checkpoint.load_state()


def read_trainer_state(path: Path) -> object:
    """Read the Trainer's state as a resume does, and use its values as transformers does."""
    read_state(path)
    (path.parent / "manifest.json").touch()
    refuse_unknown_keys(path.parent)
    state = TrainerState.load_from_json(str(path.parent / TRAINER_STATE))
    numbers = (state.eval_steps, state.save_steps, state.logging_steps, state.max_steps, state.total_flos)
    losses = [line.get("loss") for line in state.log_history]
    saved = [each for found in state.stateful_callbacks.values() for each in _listed(found)]
    callbacks = [{**each.get("args", {}), **each.get("attributes", {})} for each in saved]
    better = state.best_metric is None or state.best_metric < 1
    return sum(numbers, state.global_step), losses, callbacks, better


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]
