"""A model that is not on this machine: the message about a download that fails."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError

from ftsys.errors import ConfigError
from ftsys.model_files.folder import resolve_model_folder


@pytest.mark.parametrize("error", [HTTPError("name not known"), OSError("no route")])
def test_a_failed_connection_is_wrong_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("FTSYS_CACHE", str(tmp_path))
    monkeypatch.setattr(HfApi, "list_repo_files", fail)
    with pytest.raises(ConfigError, match=r"model\.name='nobody/no-model': not in the Hub's cache here and cannot be"):
        resolve_model_folder("nobody/no-model")
