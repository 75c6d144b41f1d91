"""Has the files of a small checkpoint for the fuzzing tests, and reads them."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ftsys.train.checkpoint.catalog import Checkpoint

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
PARTS = {name: np.ones(2, np.float32) for name in ("w[0:2]", "w[2:4]", "seen")}
MOMENTS = {"exp_avg.w": np.ones((2, 2), np.float32)}
TENSORS = {"weights.safetensors": save(PARTS), "optimizer.safetensors": save(MOMENTS)}


def read_state(path: Path) -> object:
    """Read a checkpoint's state whose hashes are right, as anybody can make them."""
    checkpoint = Checkpoint(path.parent, 1, 1, "i", CHECKPOINT["files"])
    checkpoint.check_content()
    return checkpoint.load_state()
