"""Tests the model card: metadata that the Hub's own reader accepts, names with any character, the spread over seeds."""

import math
from pathlib import Path
from typing import Any

import pytest

from ftsys.config.build import build_run
from ftsys.config.run_config import RunConfig
from ftsys.errors import ConfigError
from ftsys.run_folder.model_card import add_spread, model_card
from ftsys.tasks import GLUE, PARAPHRASE, Task
from tests.unit.run_folder.test_results import RESULTS

pytest.importorskip("huggingface_hub")
HOSTILE = 'a: &b "*c" | # {d}\n---\nlicense: mit <b>'


def _run(**sections: Any) -> RunConfig:
    return build_run({"output_dir": "out", "task": {"name": "mrpc"}, **sections})


def _card(results: dict[str, Any], run: RunConfig, task: Task) -> Any:
    from huggingface_hub import ModelCard

    return ModelCard(model_card(results, run, task))


def test_the_card_says_what_the_model_is_and_how_to_use_it() -> None:
    card = _card(RESULTS, _run(model={"name": "bert-base-uncased"}, trainer={"warmup_steps": 0.1}), GLUE["mrpc"])
    assert "# all-MiniLM-L6-v2 fine-tuned on mrpc" in card.text
    for line in (
        "| validation | accuracy | 0.8088 |",
        "| validation | f1 | null |",
        "| examples in a step | 32 |",
        "| optimizer steps | 345 |",
        "| trainer.warmup_steps | 0.1 |",
        "ftsys predict PATH_OF_THIS_FOLDER FILE",
        'print(classify({"text": "First text.", "text_pair": "Second text."}))',
    ):
        assert line in card.text
    assert "synthetic" not in card.text


def test_the_metadata_holds_the_metrics_and_no_license() -> None:
    data = _card(RESULTS, _run(model={"name": "bert-base-uncased"}), GLUE["mrpc"]).data
    assert (data.base_model, data.datasets, data.license) == ("bert-base-uncased", ["nyu-mll/glue"], None)
    assert (data.library_name, data.pipeline_tag, data.language) == ("transformers", "text-classification", None)
    found = [(one.dataset_config, one.dataset_split, one.metric_type, one.metric_value) for one in data.eval_results]
    assert found == [("mrpc", "validation", "accuracy", 0.8088)]  # f1 is undefined here, and a loss is no metric


def test_synthetic_data_and_local_folders(tmp_path: Path) -> None:
    run = _run(task={"name": "paraphrase"}, data={"source": "synthetic"}, model={"name": str(tmp_path)})
    card = _card(RESULTS | {"task": "paraphrase", "data": "synthetic"}, run, PARAPHRASE)
    assert "training data is synthetic" in card.text
    assert (card.data.base_model, card.data.datasets) == (None, None)


def test_names_with_any_character_stay_names() -> None:
    task = Task(HOSTILE, ("text",), (), ("pearson",), regression=True)
    results = RESULTS | {"task": HOSTILE, "metrics": {HOSTILE: {"pearson": 0.5}}}
    card = _card(results, _run(data={"source": {"train": "a.csv"}}), task)
    assert card.data.license is None
    assert card.data.eval_results[0].dataset_name == HOSTILE
    assert "\n---\nlicense" not in card.text
    assert "<b>" not in card.text.replace("\\<b\\>", "")
    assert 'print(classify("A text.", function_to_apply="none"))' in card.text


def test_the_spread_is_written_once_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(model_card(RESULTS, _run(), GLUE["mrpc"]))
    before = path.read_text()
    add_spread(path, {"validation": {"accuracy": [0.1, 0.2]}})
    add_spread(path, {"validation": {"accuracy": [0.8, 0.9, 0.7], "f1": [0.5]}})
    text = path.read_text()
    assert "| validation | accuracy | 3 | 0.8000 | 0.1000 |" in text
    assert "| validation | f1 | 1 | 0.5000 |  |" in text
    assert (text.count("seeds | mean"), text.count("## Use")) == (1, 1)
    assert all(line in text for line in before.splitlines())
    with pytest.raises(ConfigError, match=r"README\.md' cannot be read"):
        add_spread(tmp_path / "none" / "README.md", {"validation": {"accuracy": [math.pi]}})
