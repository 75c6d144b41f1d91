"""A model's config.json is found without a network, and an error says why there is none."""

import json
import os
from pathlib import Path

import pytest

from ftsys.errors import ConfigError
from ftsys.model_files.config import local_config, model_config

BERT = {"model_type": "bert", "hidden_size": 8}


def cached(root: Path, name: str, revision: str = "abc123") -> Path:
    """A model in a Hub cache, laid out as huggingface_hub does it."""
    model = root / f"models--{name.replace('/', '--')}"
    snapshot = model / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs/main").write_text(revision)
    (snapshot / "config.json").write_text(json.dumps(BERT))
    return snapshot


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    assert local_config(str(tmp_path), {}) == BERT


def test_the_bundled_model() -> None:
    config = local_config("bundled", {})
    assert (config["model_type"], config["hidden_size"], config["num_hidden_layers"]) == ("bert", 384, 6)


@pytest.mark.parametrize(
    ("variable", "below"),
    [("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")],
)
@pytest.mark.parametrize("name", ["bert-base-uncased", "microsoft/deberta-v3-base"])
def test_the_hubs_cache_is_found_where_the_hub_library_looks(
    tmp_path: Path, variable: str, below: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import try_to_load_from_cache

    snapshot = cached(tmp_path / below, name)
    assert local_config(name, {variable: str(tmp_path)}) == BERT
    found = try_to_load_from_cache(name, "config.json", cache_dir=tmp_path / below)
    assert Path(str(found)) == snapshot / "config.json"


@pytest.mark.parametrize("name", ["bert-base-uncased", "no/such/model", "../escape", "a b"])
def test_what_is_nowhere_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is neither a folder here nor in the Hub's cache of this machine"):
        local_config(name, {"HF_HUB_CACHE": str(tmp_path)})


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "has no config.json"), ("{", "cannot be read"), ("[1]", "a JSON list, not an object")],
)
def test_a_config_that_is_none(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        model_config(tmp_path)


def test_a_config_without_rights(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "config.json").chmod(0)
    with pytest.raises(ConfigError, match="cannot be read"):
        model_config(tmp_path)
