"""The files of a model's tokenizer, a model in the Hub's cache, and the message about a download that fails."""

import json
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

import pytest
import transformers
from huggingface_hub import HfApi, errors
from huggingface_hub.errors import HTTPError

from ftsys.errors import ConfigError
from ftsys.model_files.folder import TOKENIZER_FILES, find_model_folder, resolve_model_folder
from ftsys.run_folder.claim import WRITTEN

COMMIT = "a" * 40
SAFE = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
BIN = ("config.json", "vocab.txt", "tokenizer_config.json", "pytorch_model.bin")


@pytest.mark.parametrize("error", [HTTPError("name not known"), OSError("no route")])
def test_a_failed_connection_is_wrong_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("FTSYS_CACHE", str(tmp_path))
    monkeypatch.setattr(HfApi, "list_repo_files", fail)
    with pytest.raises(ConfigError, match=r"model\.name='nobody/no-model': not in the Hub's cache here and cannot be"):
        resolve_model_folder("nobody/no-model")


@pytest.mark.parametrize(
    "model", ["Bert", "Bertweet", "DebertaV2", "Luke", "MLuke", "RemBert", "RoCBert", "XLMRoberta"]
)
def test_every_file_of_an_encoders_tokenizer_is_known(model: str) -> None:
    assert set(getattr(transformers, f"{model}Tokenizer").vocab_files_names.values()) <= {*TOKENIZER_FILES}


@pytest.mark.parametrize("name", TOKENIZER_FILES)
def test_an_overwritten_run_keeps_no_file_of_a_tokenizer(name: str) -> None:
    assert any(fnmatch(f"model/{name}", pattern) for pattern in WRITTEN)


def cached(hub: Path, files: Iterable[str], listed: Iterable[str]) -> Path:
    """Lay out a model as huggingface_hub does, with the list of its repository's files."""
    model = hub / "models--a--b"
    snapshot = model / "snapshots" / COMMIT
    for folder in (snapshot, model / "refs", model / "trees"):
        folder.mkdir(parents=True)
    (model / "refs/main").write_text(COMMIT)
    for name in files:
        (snapshot / name).write_text("{}")
    entries = {name: {"size": 2, "blob_id": "0" * 40} for name in listed}
    (model / f"trees/{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": entries}))
    return snapshot


@pytest.mark.parametrize(
    ("files", "others"),
    [(SAFE, ("README.md", "handler.py", "onnx/model.onnx", "pytorch_model.bin")), (BIN, ("tf_model.h5", "README.md"))],
)
def test_a_cached_model_needs_no_other_file_of_its_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...], others: tuple[str, ...]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_model_folder("a/b") is None
    snapshot = cached(tmp_path, files, (*files, *others))
    assert find_model_folder("a/b") == snapshot


@pytest.mark.skipif(not hasattr(errors, "IncompleteSnapshotError"), reason="this version keeps no list of the files")
def test_a_download_that_lacks_a_file_of_the_tokenizer_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached(tmp_path, (name for name in SAFE if name != "tokenizer_config.json"), SAFE)
    assert find_model_folder("a/b") is None


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_download_that_lacks_the_weights_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached(tmp_path, SAFE[:-1], (*SAFE[:-1], weights))
    assert find_model_folder("a/b") is None
