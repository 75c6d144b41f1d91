"""Tests --overwrite: what it removes, what it leaves, and two starts at once."""

import json
from pathlib import Path

import pytest

from ftsys.errors import RunFolderError
from ftsys.run_folder import claim
from ftsys.run_folder.claim import claim_run_folder
from tests.unit.run_folder.test_claim import IDENTITY, OTHER, _finish


def test_overwrite_removes_what_a_run_writes_and_nothing_else(tmp_path: Path) -> None:
    claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    ours = [
        "results.json",
        "metrics.jsonl",
        "status.json",
        "plan.json",
        "data.json",
        "ranks.json",
        "predictions/validation.tsv",
        "submission/MRPC.tsv",
        "model/model.safetensors",
        "model/model-00001-of-00002.safetensors",
        "model/config.json",
        "model/tokenizer_config.json",
        "model/vocab.txt",
        "model/README.md",
        "checkpoints/step-000345/manifest.json",
        "checkpoints/step-000400.tmp/weights.safetensors",
        "tensorboard/events.out.tfevents.1",
    ]
    foreign = ["notes.txt", "model/notes.md", "checkpoints/mine/x.bin", "predictions/plot.png", "logs/rank-0.log"]
    for name in ours + foreign:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    taken = claim_run_folder(tmp_path, OTHER, overwrite=True)
    assert (taken.attempt, taken.finished, taken.first_attempt) == (2, False, 2)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*foreign, "owner.json", "attempts/000001.json", "attempts/000002.json"}
    assert not (tmp_path / "submission").exists(), "folders that became empty go too"
    assert claim_run_folder(tmp_path, OTHER, overwrite=False).first_attempt == 2
    with pytest.raises(RunFolderError, match="another run"):
        claim_run_folder(tmp_path, IDENTITY, overwrite=False)


def test_overwrite_does_not_follow_links(tmp_path: Path) -> None:
    outside, folder = tmp_path / "precious", tmp_path / "run"
    outside.mkdir()
    (outside / "weights").write_text("x")
    claim_run_folder(folder, IDENTITY, overwrite=False)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-000001").symlink_to(outside)
    claim_run_folder(folder, IDENTITY, overwrite=True)
    assert (outside / "weights").exists()
    assert not (folder / "checkpoints").exists()


def test_an_older_overwrite_removes_nothing_of_a_newer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older start is slow: while it removes the former run, another one claims the folder and begins to write."""
    claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    (tmp_path / "checkpoints/step-000001").mkdir(parents=True)
    (tmp_path / "results.json").write_text("{}")
    whole = claim.remove_tree

    def overtaken(path: Path) -> None:
        monkeypatch.setattr(claim, "remove_tree", whole)
        claim_run_folder(tmp_path, IDENTITY, overwrite=True)
        for name in ("config.toml", "checkpoints/step-000010/manifest.json"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("new")
        whole(path)

    monkeypatch.setattr(claim, "remove_tree", overtaken)
    with pytest.raises(RunFolderError, match="belongs to attempt 3 now; this is attempt 2"):
        claim_run_folder(tmp_path, IDENTITY, overwrite=True)
    assert (tmp_path / "checkpoints/step-000010/manifest.json").read_text() == "new"
    assert (tmp_path / "config.toml").read_text() == "new"
    assert json.loads((tmp_path / "owner.json").read_text())["attempt"] == 3


def test_results_of_an_attempt_before_overwrite_do_not_finish_the_new_run(tmp_path: Path) -> None:
    """An attempt that lost its folder may still write results.json after --overwrite began a new run."""
    claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    claim_run_folder(tmp_path, IDENTITY, overwrite=True)
    _finish(tmp_path, attempt=1)
    taken = claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    assert (taken.attempt, taken.finished) == (3, False)
