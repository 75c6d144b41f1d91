"""Tests that files are on the disk before they get the name by which others find them, and that the name is too."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from ftsys.export.command import _made_beside
from ftsys.offline.hf_caches import HfCaches, put_model
from ftsys.run_glue.result_files import _link_model
from ftsys.train.checkpoint.files import replace_safetensors
from ftsys.train.checkpoint.training_state import FullState
from ftsys.train.finish import write_plain_model
from tests.unit.train.checkpoint.test_catalog import save


class Disk:
    """Notes which files and folders were synced, and each that was renamed before it was."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.synced: set[int] = set()
        self.early: list[str] = []
        patch.setattr(os, "fsync", self._wrapped(os.fsync, self._sync))
        for name in ("rename", "replace"):
            patch.setattr(os, name, self._wrapped(getattr(os, name), self._rename))

    def _wrapped(self, real: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def called(*arguments: Any, **others: Any) -> Any:
            note(*arguments)
            return real(*arguments, **others)

        return called

    def _sync(self, file: int) -> None:
        self.synced.add(os.fstat(file).st_ino)

    def _rename(self, source: Any, target: Any) -> None:
        self.early += [str(path) for path in self._unsynced(Path(source)) if not path.is_dir()]
        self.synced.discard(Path(target).parent.stat().st_ino)

    def _unsynced(self, place: Path) -> list[Path]:
        return [path for path in (place, *place.rglob("*")) if path.stat().st_ino not in self.synced]

    def check(self, place: Path) -> None:
        """Fail for a file or folder at `place` or below that was not synced after its last rename."""
        assert self.early == []
        assert self._unsynced(place) == []


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    with monkeypatch.context() as patch:
        yield Disk(patch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the folder of a model, not synced."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_model_in_the_cache(disk: Disk, model: Path, tmp_path: Path) -> None:
    placed = put_model("a/b", model, HfCaches.under(tmp_path / "hf"))
    disk.check(placed.path.parents[1])


@pytest.mark.parametrize("left", ["no file", "an empty file"])
def test_a_model_that_a_power_cut_left_empty_is_put_there_again(model: Path, tmp_path: Path, left: str) -> None:
    caches = HfCaches.under(tmp_path / "hf")
    snapshot = put_model("a/b", model, caches).path
    for path in snapshot.iterdir():
        path.unlink()
        if left == "an empty file":
            path.touch()
    again = put_model("a/b", model, caches)
    assert (again.new, again.path) == (True, snapshot)
    assert (snapshot / "model.safetensors").read_bytes() == b"weights"
    assert not put_model("a/b", model, caches).new


@pytest.mark.parametrize("links", [True, False])
def test_the_files_of_a_run_beside_its_results(
    disk: Disk, model: Path, tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    model.rename(run / "model")
    disk.early.clear()  # that move was the test's
    if links:
        disk.synced |= {path.stat().st_ino for path in (run / "model").iterdir()}  # as the run left them
    else:
        monkeypatch.setattr(os, "link", _refuse)
    _link_model(run)
    copies = [path for path in run.iterdir() if path.is_file()]
    assert sorted(path.name for path in copies) == ["config.json", "model.safetensors", "tokenizer.json"]
    for path in copies:
        disk.check(path)
    assert run.stat().st_ino in disk.synced


def _refuse(*_: object, **__: object) -> None:
    raise OSError("refused here")


def test_an_export_takes_the_place_of_the_former_one(disk: Disk, tmp_path: Path) -> None:
    for content in ("first", "second"):
        with _made_beside(tmp_path / "onnx") as folder:
            (folder / "sub").mkdir()
            (folder / "sub/model.onnx").write_text(content)
        disk.check(tmp_path)
        assert (tmp_path / "onnx/sub/model.onnx").read_text() == content
        assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_a_former_export_stays_until_the_new_one_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").write_text("first")
    real = Path.rename

    def refuses(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", refuses)
    with pytest.raises(KeyboardInterrupt), _made_beside(tmp_path / "onnx"):
        pass
    assert (tmp_path / "onnx/model.onnx").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_weights(disk: Disk, tmp_path: Path) -> None:
    replace_safetensors(tmp_path / "model.safetensors", {"weight": torch.ones(3)})
    disk.check(tmp_path)


def test_a_checkpoint_and_the_one_that_takes_its_place(disk: Disk, tmp_path: Path) -> None:
    for step in (1, 2, 2):
        save(tmp_path / "checkpoints", step)
        disk.check(tmp_path / "checkpoints")


def test_a_trained_model(disk: Disk, tmp_path: Path) -> None:
    small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    model = BertForSequenceClassification(small)
    state = FullState(weights=dict(model.named_parameters()))
    for _ in range(2):
        write_plain_model(model, state, tmp_path / "model")
        disk.check(tmp_path / "model")
        assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    assert BertConfig.from_pretrained(tmp_path / "model").hidden_size == 8


def test_a_config_that_cannot_be_written_leaves_the_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftsys.train.finish import _save_config

    _save_config(BertConfig(hidden_size=12), tmp_path)
    former = (tmp_path / "config.json").read_bytes()
    monkeypatch.setattr(BertConfig, "to_json_file", _refuse)
    with pytest.raises(OSError, match="refused"):
        _save_config(BertConfig(hidden_size=24), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == former
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
