"""Tests that every shipped run file loads, plans, and sets what its name says."""

from pathlib import Path

import pytest

from ftsys.config import dump_toml, load_run, resolve_task
from launcher.planner.plan import World, make_plan

FOLDER = Path(__file__).parents[4] / "configs/runs"
FILES = sorted(FOLDER.glob("*.toml"))


def test_there_are_some() -> None:
    assert {"mrpc.toml", "demo.toml", "stsb.toml", "custom.toml"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_shipped_run_loads_and_plans(path: Path, tmp_path: Path) -> None:
    run = load_run(path)
    assert resolve_task(run).columns
    assert make_plan(run, World(ranks=2, local_ranks=2, bf16_supported=True), train_rows=3668).total_steps
    copy = tmp_path / "config.toml"
    copy.write_text(dump_toml(run), encoding="utf-8")
    assert load_run(copy) == run.model_copy(update={"recipe": None})


def test_the_demo_needs_no_network() -> None:
    run = load_run(FOLDER / "demo.toml")
    assert (run.data.source, run.model.name, resolve_task(run).name) == ("synthetic", "bundled", "paraphrase")
    assert (run.train.epochs, run.batch.global_size, run.train.learning_rate) == (3.0, 32, 5e-5)


def test_mrpc_from_a_local_folder() -> None:
    run = load_run(FOLDER / "mrpc.toml", ["--data.source", "/data/glue"])
    assert (run.data.source, resolve_task(run).name) == ("/data/glue", "mrpc")


def test_a_custom_task_is_all_in_its_file() -> None:
    task = resolve_task(load_run(FOLDER / "custom.toml"))
    assert (task.labels, task.label_column, task.splits) == (
        ("bad", "mixed", "good"),
        "rating",
        ("train", "validation", "test"),
    )
