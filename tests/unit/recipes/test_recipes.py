"""Tests recipes: their place below the run file, their values by task, and that each shipped one fits every task."""

import re
from pathlib import Path
from typing import Any

import pytest

from ftsys.cli import main
from ftsys.config import build_run, dump_toml, load_run, resolved_tree
from ftsys.errors import ConfigError
from ftsys.recipes import FOLDER
from ftsys.shipped import shipped, shipped_names
from ftsys.tasks import GLUE

RECIPES = shipped_names(FOLDER)
MINE = """
[batch]
global_size = 8
[train]
epochs = 4
learning_rate = 1e-3
[trainer]
weight_decay = 0.1
[by_task.rte.train]
epochs = 7
[by_task.rte.trainer]
warmup_steps = 0.1
"""


def run_of(recipe: str, task: str = "mrpc", **sections: Any) -> Any:
    return build_run({"output_dir": "runs/x", "recipe": recipe, "task": {"name": task}, **sections})


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.toml").write_text(MINE)
    return str(tmp_path / "mine.toml")


def test_a_recipe_lies_below_the_run_file_and_has_values_by_task(mine: str) -> None:
    run = run_of(mine)
    assert (run.batch.global_size, run.train.epochs, run.train.learning_rate) == (8, 4.0, 1e-3)
    assert run.trainer == {"weight_decay": 0.1}
    run = run_of(mine, "rte", train={"learning_rate": 5e-5}, batch={"global_tokens": 4096})
    assert (run.batch.global_size, run.batch.global_tokens) == (None, 4096)
    assert (run.train.epochs, run.train.learning_rate) == (7.0, 5e-5)
    assert run.trainer == {"weight_decay": 0.1, "warmup_steps": 0.1}
    assert run_of(mine, train={"max_steps": 9}).train.epochs is None


def test_the_origin_of_a_value_is_shown_and_a_dumped_run_needs_no_recipe(mine: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f'output_dir = "x"\nrecipe = "{mine}"\n[task]\nname = "rte"\n[train]\nlearning_rate = 2e-5\n')
    origins = {key: origin for key, _, origin in resolved_tree(path, ["--batch.global_size", "4"])}
    wanted = {"train.epochs": "recipe", "trainer.warmup_steps": "recipe", "train.learning_rate": "file"}
    wanted |= {"batch.global_size": "command line", "train.seed": "default", "recipe": "file"}
    assert {key: origins[key] for key in wanted} == wanted
    run = load_run(path)
    (tmp_path / "again.toml").write_text(dump_toml(run))
    Path(mine).unlink()
    assert load_run(tmp_path / "again.toml") == run.model_copy(update={"recipe": None})


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("robertta", "", "recipe='robertta' is not a recipe: did you mean 'roberta'"),
        ("none.toml", "", "cannot be read"),
        ("bad.toml", "[train\n", "cannot be read"),
        (
            "bad.toml",
            "[model]\nname = 'x'\n",
            r"has model: a recipe has the sections \[batch\], \[train\], \[trainer\]",
        ),
        ("bad.toml", "train = 3\n", "a key that is not a section"),
        ("bad.toml", "[by_task]\nmrpc = 3\n", "has by_task"),
        ("bad.toml", "[train]\nlerning_rate = 1e-5\n", "did you mean train.learning_rate"),
    ],
)
def test_a_recipe_that_cannot_be_used(
    name: str, text: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=wanted):
        run_of(name)


@pytest.mark.parametrize("name", [["mrpc"], {"a": 1}, 3])
def test_a_task_whose_name_is_no_text_is_one_message(mine: str, name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^task\.name=.* cannot be used: write "):
        run_of(mine, name)


def test_the_command_line_names_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text('output_dir = "x"\n[task]\nname = "rte"\n')
    assert main(["config", str(tmp_path / "run.toml"), "--recipe", "roberta"]) == 0
    assert re.search(r"train.learning_rate +2e-05 +recipe", capsys.readouterr().out)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_shipped_recipe_fits_every_task_and_names_its_source(recipe: str) -> None:
    for task in GLUE:
        assert run_of(recipe, task).train.learning_rate < 1e-3
    head = shipped(f"{FOLDER}/{recipe}.toml").read_text().split("[batch]")[0]
    assert re.search(r"arXiv \d{4}\.\d{5}|model card|our own measurement", head)


def test_the_recipes_are_shipped() -> None:
    wanted = [
        "bert",
        "deberta-v3",
        "ettin",
        "eurobert",
        "minilm",
        "minilm-course",
        "minilm-l12",
        "modernbert",
        "roberta",
    ]
    assert wanted == RECIPES
