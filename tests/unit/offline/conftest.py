"""Makes a run with a small model and data of its own for the tests of bundles."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ftsys.config import RunConfig, build_run, resolve_task
from ftsys.data.bundle import Bundle
from ftsys.model_files.folder import TOKENIZER_FILES
from ftsys.offline.make_bundle import make_bundle

ROWS = "text,label\n" + "a good day,up\na bad day,down\n" * 4


@pytest.fixture
def run(tmp_path: Path, minilm_folder: Path) -> RunConfig:
    """A run whose data and model lie in folders that a test may remove; its weights are few."""
    (tmp_path / "train.csv").write_text(ROWS)
    model = tmp_path / "my-model"
    model.mkdir()
    for name in ("config.json", *(name for name in TOKENIZER_FILES if (minilm_folder / name).is_file())):
        shutil.copyfile(minilm_folder / name, model / name)
    save_file({"weight": np.zeros(4, np.float32)}, model / "model.safetensors")
    return build_run(run_tree(tmp_path))


def run_tree(folder: Path, **change: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "output_dir": "out",
        "task": {"name": "mood", "columns": ["text"], "labels": ["down", "up"]},
        "data": {"source": {"train": str(folder / "train.csv")}, "store": str(folder / "stores"), "max_length": 64},
        "model": {"name": str(folder / "my-model")},
    }
    return tree | change


def bundled(run: RunConfig, target: Path) -> Bundle:
    bundle, made = make_bundle(run, resolve_task(run), target)
    assert made
    return bundle
