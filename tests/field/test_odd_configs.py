"""Values of a model's config.json that people have there for other uses of it, or by mistake."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from ftsys.cli import main
from ftsys.errors import ConfigError
from ftsys.export.convert import load_stock, stock_run
from ftsys.model_files.config import model_config
from ftsys.run_folder.layout import ADAPTER
from tests.field.conftest import write_own_run
from tests.field.test_model_folders import NOT_MADE, SERVED, small

ROWS: dict[str, Sequence[object]] = {split: ["no", "yes"] * 6 for split in ("train", "validation")}
OUTPUTS: list[dict[str, Any]] = [
    {"output_attentions": True},
    {"return_dict": False},
    {"output_hidden_states": True, "return_dict": None, "output_attentions": False},
]
WITHOUT_TYPES = {"deberta", "deberta-v2", "gte"}
"""Types of models that have no token types at type_vocab_size=0."""


def write_project(folder: Path, model: Path, changes: dict[str, Any], more: str = "") -> Path:
    """Write a run file, its rows, and a copy of `model` with changes of its config.json; returns the run file."""
    shutil.copytree(model, folder / "model")
    config = json.loads((folder / "model/config.json").read_text())
    (folder / "model/config.json").write_text(json.dumps(config | changes))
    return write_own_run(folder, folder / "model", ROWS, more)


def predict_words(model: Path, folder: Path) -> list[str]:
    """Write a file of texts and return the command that scores it with `model`."""
    (folder / "texts.csv").write_text("text\na cat\na dog\n")
    return ["predict", str(model), str(folder / "texts.csv"), "--output", str(folder / "scores.csv")]


@pytest.mark.parametrize("changes", OUTPUTS, ids=str)
def test_what_a_model_returns_elsewhere_does_not_matter_and_is_kept(
    changes: dict[str, Any], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for name, values in (("plain", {}), ("changed", changes)):
        (tmp_path / name).mkdir()
        run = write_project(tmp_path / name, tiny_model, values)
        assert main(["train", str(run)]) == 0
        assert "packed batches" in capsys.readouterr().err
        assert main(["evaluate", str(run)]) == 0
        said.append(capsys.readouterr().out.replace(name, ""))
    saved = json.loads((tmp_path / "changed/run/model/config.json").read_text())
    assert {key: saved.get(key) for key in changes} == changes
    assert saved == {**json.loads((tmp_path / "plain/run/model/config.json").read_text()), **changes}
    assert said[0] == said[1]
    assert main(predict_words(tmp_path / "changed/run", tmp_path)) == 0
    logits_SC = stock_run(load_stock(tmp_path / "changed/run/model"))
    assert logits_SC({"input_ids": torch.tensor([[5, 6, 7]]).numpy()}).shape == (1, 2)


def test_an_adapter_keeps_what_its_base_model_returns(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    run = write_project(tmp_path, tiny_model, {"output_attentions": True}, "[lora]\nr = 2\nmerge = true\n")
    assert main(["train", str(run)]) == 0
    for file in (f"{ADAPTER}/adapted_config.json", "model/config.json"):
        assert json.loads((tmp_path / "run" / file).read_text())["output_attentions"] is True


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 0}, {"type_vocab_size": 0}], ids=str)
def test_sizes_that_no_model_can_have_are_refused_before_the_folder_is_claimed(
    changes: dict[str, Any], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_project(tmp_path, tiny_model, changes)
    assert main(["train", str(run)]) == 2
    name = next(iter(changes))
    assert f"{name}=0 is not " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_finished_run_whose_config_was_changed_is_refused(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(write_project(tmp_path, tiny_model, {}))]) == 0
    config = json.loads((tmp_path / "run/model/config.json").read_text())
    (tmp_path / "run/model/config.json").write_text(json.dumps({**config, "num_hidden_layers": 0}))
    assert main(predict_words(tmp_path / "run", tmp_path)) == 2
    assert "num_hidden_layers=0 is not a whole number from 1" in capsys.readouterr().err


def with_types() -> list[str]:
    """Return the types of models whose configuration counts token types, of those that a test can make."""
    kinds = [kind for kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES if kind not in NOT_MADE]
    return [kind for kind in kinds if "type_vocab_size" in AutoConfig.for_model(kind).to_dict()]


def test_only_models_that_work_without_token_types_may_have_none(tmp_path: Path) -> None:
    found = {kind for kind in with_types() if works_without_types(kind)}
    assert found == WITHOUT_TYPES <= SERVED.keys()
    for kind in with_types():
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "type_vocab_size": 0}))
        if kind in WITHOUT_TYPES:
            model_config(tmp_path)
        else:
            with pytest.raises(ConfigError, match="type_vocab_size=0 is not 1 or more"):
                model_config(tmp_path)


def works_without_types(kind: str) -> bool:
    """Return True if a model of that type computes a batch with type_vocab_size=0."""
    model = small(kind, type_vocab_size=0)
    try:
        model(input_ids=torch.tensor([[0, 5, 6, 7, 2]]), attention_mask=torch.ones(1, 5, dtype=torch.long))
    except (RuntimeError, ValueError):
        return False
    return True
