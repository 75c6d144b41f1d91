"""A model's config.json is found without a network, and an error says why there is none."""

import json
import os
from pathlib import Path

import pytest

from ftsys.errors import ConfigError
from ftsys.model_files.config import local_config, model_config
from ftsys.model_files.folder import find_model_folder
from ftsys.offline.hf_caches import HfCaches, put_model
from ftsys.train.trainable.adapter_files import ADAPTER_CONFIG, base_folder

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


OUTSIDE = [b"../../../../victim", b"/etc", b"..", b"\xff\xfe", b"x" * 300, b"a\0b", b"a\nb"]


@pytest.mark.parametrize("revision", OUTSIDE)
def test_a_revision_that_leads_out_of_the_hubs_cache_is_refused(
    tmp_path: Path, revision: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for outside in (tmp_path / "victim", cached(tmp_path / "hub", "a/b").parent):
        outside.mkdir(exist_ok=True)
        (outside / "config.json").write_text(json.dumps(BERT))
    (tmp_path / "hub/models--a--b/refs/main").write_bytes(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    caches = HfCaches.under(tmp_path)
    for read in (
        lambda: local_config("a/b", {"HF_HOME": str(tmp_path)}),
        lambda: find_model_folder("a/b"),
        lambda: put_model("a/b", tmp_path / "victim", caches),
    ):
        with pytest.raises(ConfigError, match=r"refs/main: does not name a revision .*Remove .*models--a--b'"):
            read()


def test_an_empty_reference_is_an_unfinished_download(tmp_path: Path) -> None:
    cached(tmp_path, "a/b")
    (tmp_path / "models--a--b/refs/main").write_text("")
    with pytest.raises(ConfigError, match="nor in the Hub's cache"):
        local_config("a/b", {"HF_HUB_CACHE": str(tmp_path)})


@pytest.mark.parametrize("name", ["x" * 300, "~no-such-user/x", "a--b", "a..b"])
def test_a_name_that_neither_a_file_nor_the_hub_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"model.name=.*(no such folder|neither a folder)"):
        local_config(name, {"HF_HUB_CACHE": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"model.name=.*(no such folder|neither a folder)"):
        find_model_folder(name)


@pytest.mark.parametrize("base", ["", "a\nb", "a\x1b[2J", "\ud800", "a\0b", 7, None])
def test_the_name_of_an_adapters_model_is_one_line_of_text(tmp_path: Path, base: object) -> None:
    config = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 8, "lora_alpha": 16}
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps(config))
    with pytest.raises(
        ConfigError, match=r"adapter_config.json: cannot be used .(base_model_name_or_path|the value): "
    ):
        base_folder(tmp_path)


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
