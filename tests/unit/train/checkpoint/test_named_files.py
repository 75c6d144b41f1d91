"""Tests that a checkpoint's state names no file but those of its own manifest."""

import json
from pathlib import Path

import pytest

from ftsys.errors import CheckpointError
from ftsys.train.checkpoint.catalog import Checkpoint
from ftsys.train.checkpoint.files import write_json
from ftsys.train.checkpoint.manifest import read_manifest, write_manifest
from tests.unit.train.checkpoint.test_catalog import save


def test_weights_are_read_from_files_of_the_manifest_only(tmp_path: Path) -> None:
    path = save(tmp_path / "mine", 1)
    other = save(tmp_path / "theirs", 1) / "weights.safetensors"
    for name in ("../../theirs/step-000001/weights.safetensors", str(other), "another.safetensors"):
        state = json.loads((path / "state.json").read_text())
        state["full_state"]["weights_file"] = name
        facts = read_manifest(path)
        for name_of_ours in ("state.json", "manifest.json"):
            (path / name_of_ours).unlink()
        entry = write_json(path / "state.json", state)
        write_manifest(path, {**facts, "files": {**facts["files"], "state.json": entry}})
        with pytest.raises(CheckpointError, match=r"manifest.json does not list .*; state.json names it"):
            Checkpoint.open(path).load_state()
