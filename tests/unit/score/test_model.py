"""Tests which folder the model is in that a name means."""

import json
import shutil
from pathlib import Path

import pytest

from ftsys.errors import ConfigError
from ftsys.score.model import find_model

RUN_FILE = 'output_dir = "runs/x"\n[task]\nname = "mrpc"\n[data]\nmax_length = 64\n'


@pytest.fixture
def run(tmp_path: Path, minilm_folder: Path) -> Path:
    """A run folder as `ftsys run-glue` leaves it: with the files of its model in it as well."""
    folder = tmp_path / "out"
    (folder / "model").mkdir(parents=True)
    (folder / "attempts").mkdir()
    (folder / "config.toml").write_text(RUN_FILE)
    config = json.loads((minilm_folder / "config.json").read_text())
    for place in (folder, folder / "model"):
        (place / "config.json").write_text(json.dumps(config))
    return folder


def test_a_run_folder_with_copies_of_its_model_is_one(run: Path) -> None:
    for name in (run, run / "model"):
        found = find_model(str(name))
        assert (found.folder, found.max_length, found.columns) == (run / "model", 64, ("sentence1", "sentence2"))


def test_copies_of_a_former_model_are_not_taken_while_another_is_trained(run: Path) -> None:
    shutil.rmtree(run / "model")
    with pytest.raises(ConfigError, match="holds no trained model yet"):
        find_model(str(run))


def test_a_folder_that_only_has_a_file_of_that_name_is_a_model(run: Path) -> None:
    shutil.rmtree(run / "model")
    (run / "attempts").rmdir()
    assert find_model(str(run)).folder == run


def test_an_adapter_alone_is_the_model_of_its_run(run: Path) -> None:
    for place in (run, run / "model"):
        (place / "config.json").rename(place / "adapted_config.json")
    (run / "adapted_config.json").unlink()
    assert find_model(str(run)).folder == run / "model"
