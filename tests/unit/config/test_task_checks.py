"""Tests [task] and [data] together: the task that a run file defines, the mistakes, and the run's identity."""

from typing import Any

import pytest

from ftsys.config import build_run, resolve_task, run_identity
from ftsys.errors import ConfigError
from ftsys.tasks import GLUE, PARAPHRASE, Task

FILES = {"train": "a.csv", "validation": "b.csv", "test": "c.csv"}
CUSTOM = {"name": "reviews", "columns": ["text"], "labels": ["bad", "good"]}


def build(task: dict[str, Any] | None = None, source: Any = "hub", **sections: Any) -> Any:
    tree = {"output_dir": "runs/x", "task": task or {}, "data": {"source": source}, **sections}
    return build_run({name: value for name, value in tree.items() if value != {}})


@pytest.mark.parametrize("name", GLUE)
def test_a_glue_name_is_its_row(name: str) -> None:
    assert resolve_task(build({"name": name})) == GLUE[name]


def test_the_synthetic_sample_implies_its_task() -> None:
    assert resolve_task(build(source="synthetic")) == PARAPHRASE
    assert resolve_task(build({"name": "paraphrase"}, "synthetic")) == PARAPHRASE


def test_a_known_task_keeps_what_is_not_changed() -> None:
    task = resolve_task(build({"name": "mrpc", "columns": ["a", "b"], "label_column": "y", "metrics": ["f1"]}, FILES))
    assert (task.columns, task.label_column, task.metrics) == (("a", "b"), "y", ("f1",))
    assert (task.labels, task.regression) == (GLUE["mrpc"].labels, False)


def test_a_task_of_the_run_files_own() -> None:
    task = resolve_task(build({**CUSTOM, "label_column": "rating"}, FILES))
    assert task == Task("reviews", ("text",), ("bad", "good"), ("accuracy",), label_column="rating")


def test_a_regression_of_the_run_files_own() -> None:
    task = resolve_task(build({"name": "score", "columns": ["a", "b"], "regression": True}, FILES))
    assert (task.regression, task.labels, task.metrics) == (True, (), ("pearson", "spearmanr"))


def test_splits_are_those_of_the_files() -> None:
    source = {"train": "a.csv", "validation_hard": "b.csv", "validation_easy": "c.csv"}
    task = resolve_task(build(CUSTOM, source))
    assert task.splits == ("train", "validation_hard", "validation_easy")
    assert resolve_task(build(CUSTOM, {"test": "a.csv"})).train_split is None


@pytest.mark.parametrize(
    ("task", "source", "said"),
    [
        ({}, "hub", "task.name='' names no task: write one of cola, sst2, "),
        ({"name": "mprc"}, "hub", "task.name='mprc' is not a known task: did you mean 'mrpc', or describe a task"),
        ({"name": "MRPC"}, "/data", "task.name='MRPC' is not a known task: did you mean 'mrpc'"),
        ({**CUSTOM, "columns": []}, FILES, "task.columns=[] names no text for task 'reviews'"),
        ({**CUSTOM, "labels": []}, FILES, "task.labels=[] names no class for task 'reviews'"),
        ({**CUSTOM, "labels": ["bad"]}, FILES, "task.labels=['bad'] names one class"),
        ({**CUSTOM, "labels": ["bad", "bad"]}, FILES, "task.labels=['bad', 'bad'] repeats a name"),
        ({**CUSTOM, "labels": ["bad", ""]}, FILES, "task.labels=['bad', ''] repeats a name or has an empty one"),
        ({**CUSTOM, "columns": ["a", "b", "c"]}, FILES, "task.columns=['a', 'b', 'c'] names 3 columns: write one or"),
        ({**CUSTOM, "regression": True}, FILES, "task.labels=['bad', 'good'] and task.regression=True exclude"),
        ({**CUSTOM, "metrics": ["acuracy"]}, FILES, "task.metrics names 'acuracy', which is not a metric for classes"),
        ({**CUSTOM, "labels": ["a", "b", "c"], "metrics": ["f1"]}, FILES, "task.metrics names 'f1', which is for two"),
        ({"name": "mrpc", "labels": ["a", "b", "c"]}, FILES, "'f1', a metric of task.name='mrpc', is for two classes"),
        ({"name": "mnli", "metrics": ["precision"]}, "hub", "task.metrics names 'precision', which is for two classes"),
        ({**CUSTOM, "metrics": ["pearson"]}, FILES, "task.metrics names 'pearson', which is not a metric for classes"),
        ({"name": "stsb", "metrics": ["f1"]}, "hub", "task.metrics names 'f1', which is not a metric for a regression"),
        ({"name": "stsb", "labels": ["a", "b"]}, "hub", "task.labels=['a', 'b'] does not fit task.name='stsb'"),
        ({"name": "mrpc", "regression": True}, "hub", "task.regression=True does not fit task.name='mrpc'"),
        ({"name": "mrpc", "columns": ["a"]}, FILES, "task.columns=['a'] has 1 name(s), but task 'mrpc' reads 2"),
        (CUSTOM, "hub", "data.source='hub' has GLUE's tasks only, not task.name='reviews'"),
        ({"name": "paraphrase"}, "hub", "data.source='hub' has GLUE's tasks only, not task.name='paraphrase'"),
        ({"name": "mrpc"}, "synthetic", "data.source='synthetic' is the synthetic sample of the task 'paraphrase'"),
        ({"name": "mrpc"}, {"dev": "a.csv"}, "data.source names the split 'dev': write one of train, validation, test"),
        ({"name": "mnli"}, {"validation": "a"}, "data.source names the split 'validation': did you mean 'validation_"),
        (CUSTOM, {"trian": "a.csv"}, "data.source names the split 'trian': did you mean 'train'"),
        (CUSTOM, {"train2": "a.csv"}, "data.source names the split 'train2': did you mean 'train'"),
        (CUSTOM, {}, "data.source={} names no file"),
        (CUSTOM, {"train": "a.csv", "validation/hard": "b.csv"}, "data.source names the split 'validation/hard': name"),
        (CUSTOM, {"train": "a.csv", "test ": "b.csv"}, "data.source names the split 'test ': name a split with"),
        ({"name": "mnli", "label_column": "label1"}, "hubs", "task.label_column='label1' is not read from data."),
        ({"name": "paraphrase", "label_column": "y"}, "synthetic", "task.label_column='y' is not read from data."),
        ({"name": "mrpc", "label_columns": ["a", "b"]}, FILES, "task.label_columns=['a', 'b'] does not fit task.name="),
    ],
)
def test_each_mistake_is_one_clear_message(task: dict[str, Any], source: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(task, source)
    (message,) = caught.value.messages
    assert message.startswith(said)


SAME: list[dict[str, Any]] = [
    {"engine": {"precision": "fp32", "zero_stage": 2}},
    {"launch": {"nodes": 4}},
    {"train": {"resume": "never", "watchdog_seconds": 5, "save_every": 10, "save_keep": 9, "max_nonfinite_steps": 1}},
    {"batch": {"micro_tokens": 512}},
    {"output_dir": "elsewhere"},
    {"trainer": {"report_to": ["none"], "logging_steps": 3}},
    {"task": {"name": "mrpc", "columns": ["sentence1", "sentence2"]}},
]
OTHER: list[dict[str, Any]] = [
    {"train": {"seed": 43}},
    {"train": {"epochs": 4}},
    {"train": {"max_steps": 4}},
    {"train": {"learning_rate": 1e-5}},
    {"train": {"eval_every": 10}},
    {"batch": {"global_size": 8}},
    {"batch": {"order": "length_grouped"}},
    {"model": {"name": "bert-base-uncased"}},
    {"model": {"head": "new"}},
    {"data": {"source": {"train": "t.tsv"}}},
    {"data": {"source": {"train": "t.tsv"}, "quoting": "none"}},
    {"task": {"name": "rte"}},
    {"task": {"name": "mrpc", "label_column": "y"}},
    {"trainer": {"weight_decay": 0.01}},
]


@pytest.mark.parametrize("change", SAME, ids=repr)
def test_launch_engine_and_care_change_no_identity(change: dict[str, Any]) -> None:
    assert run_identity(build_run({"output_dir": "x", "task": {"name": "mrpc"}, **change})) == run_identity(
        build({"name": "mrpc"})
    )


def test_what_decides_results_changes_the_identity() -> None:
    trees: list[dict[str, Any]] = [{"data": {"max_length": 64}}, {"data": {"source": "/data/glue"}}, {}, *OTHER]
    found = {run_identity(build_run({"output_dir": "x", "task": {"name": "mrpc"}, **tree})) for tree in trees}
    assert len(found) == len(trees)


def test_quoting_is_refused_for_what_is_no_file() -> None:
    with pytest.raises(ConfigError, match=r"data\.quoting='csv' is for a table of CSV or TSV files"):
        build_run({"output_dir": "x", "task": {"name": "mrpc"}, "data": {"source": "hub", "quoting": "csv"}})


@pytest.mark.parametrize("ending", ["json", "JSONL", "parquet"])
def test_quoting_is_refused_for_files_without_quoting(ending: str) -> None:
    tree = {"output_dir": "x", "task": {"name": "mrpc"}}
    files = {"train": f"a.{ending}", "validation": "b.parquet"}
    with pytest.raises(ConfigError) as caught:
        build_run({**tree, "data": {"source": files, "quoting": "none"}})
    (message,) = caught.value.messages
    assert message.startswith("data.quoting='none' is for a table of CSV or TSV files, and data.source={'train': 'a.")
    assert build_run({**tree, "data": {"source": {**files, "test": "c.TSV"}, "quoting": "none"}}).data.quoting == "none"


def test_the_identity_is_the_same_in_every_process() -> None:
    # Folders written by an earlier version must stay theirs: a change here makes every run folder a stranger's.
    assert run_identity(build({"name": "mrpc"})) == "09c8da8ed8de7cc8e13248ff8d600bc5a339fc250b899790372ffcea034bd124"
