"""The files of a model's tokenizer, and the message about a download that fails."""

from fnmatch import fnmatch
from pathlib import Path

import pytest
import transformers
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError

from ftsys.errors import ConfigError
from ftsys.model_files.folder import TOKENIZER_FILES, resolve_model_folder
from ftsys.run_folder.claim import WRITTEN


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
