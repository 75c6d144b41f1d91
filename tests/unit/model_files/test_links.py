"""Tests that no command copies a file from outside a model's folder because the folder links to it."""

from pathlib import Path

import pytest

from ftsys.config import build_run
from ftsys.errors import ConfigError
from ftsys.export.convert import copy_companions
from ftsys.models import families
from ftsys.offline.hf_caches import HfCaches, put_model
from ftsys.train import preflight

OUTSIDE = "added_tokens.json' is a link to '.*id_rsa', outside the model folder"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "id_rsa").write_text("key")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "own.txt").write_text("[PAD]")
    (folder / "vocab.txt").symlink_to("own.txt")
    (folder / "added_tokens.json").symlink_to(tmp_path / "id_rsa")
    return folder


def test_a_training_is_refused_before_it_begins(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "check_has_classifier", lambda folder, trusted: None)
    run = build_run({"output_dir": "out", "task": {"name": "mrpc"}, "model": {"name": str(model)}})
    with pytest.raises(ConfigError, match=OUTSIDE):
        preflight.check_classifier(run)
    (model / "added_tokens.json").unlink()
    preflight.check_classifier(run)


def test_an_export_and_a_cache_get_no_copy(model: Path, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    with pytest.raises(ConfigError, match=OUTSIDE):
        copy_companions(model, tmp_path / "export")
    with pytest.raises(ConfigError, match=OUTSIDE):
        put_model("org/name", model, HfCaches.under(tmp_path / "home"))
    assert not [path for path in tmp_path.rglob("*") if path.name == "added_tokens.json" and path.parent != model]
