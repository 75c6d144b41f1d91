"""Tests the translation of the example script's flags into a run file, and the refused flags."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ftsys.config import build_run, load_run, resolve_task
from ftsys.config.trainer_known import HONOURED_TRAINER_FIELDS
from ftsys.errors import ConfigError, DataError
from ftsys.run_glue.command import run_file_text
from ftsys.run_glue.flag_table import ALLOWED_VALUES, RUN_FILE_KEYS, WITHOUT_EFFECT
from ftsys.run_glue.flags import DEFAULTS
from ftsys.run_glue.infer_task import InferredTask, infer_from_file, infer_from_hub
from ftsys.run_glue.translate import READ_HERE, Request, translate
from ftsys.train.trainer.arguments import TrainingArguments

MRPC = {"model_name_or_path": "bert-base-uncased", "task_name": "mrpc", "do_train": True}


def asked(ranks: int = 1, **flags: Any) -> Request:
    return translate(MRPC | flags, ranks, _nothing, _nothing)


def _nothing(*_: object) -> InferredTask:
    raise AssertionError("a GLUE task is known: nothing is inferred")


def run_of(ranks: int = 1, **flags: Any) -> Any:
    return build_run(asked(ranks, **flags).tree)


def test_the_defaults_are_the_scripts() -> None:
    run = run_of(output_dir="out")
    assert (run.train.learning_rate, run.train.epochs, run.train.seed, run.data.max_length) == (5e-5, 3.0, 42, 128)
    assert (run.batch.global_size, run.engine.precision, run.data.source) == (8, "fp32", "hub")
    assert (run.train.save_every, run.train.eval_every, run.trainer) == (500, "never", {})


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        ({"task_name": "STSB"}, "task.name", "stsb"),
        ({"glue_dir": "files"}, "data.source", "files"),
        ({"max_seq_length": 64}, "data.max_length", 64),
        ({"max_train_samples": 10, "max_predict_samples": 5}, "data.first_rows", {"train": 10, "test": 5}),
        ({"num_train_epochs": 2}, "train.epochs", 2.0),
        ({"max_steps": 7, "num_train_epochs": 2}, "train.max_steps", 7),
        ({"max_steps": 7}, "train.epochs", None),
        ({"learning_rate": 1e-3}, "train.learning_rate", 1e-3),
        ({"layer_decay": 0.9}, "train.layer_decay", 0.9),
        ({"cuda_graphs": True}, "engine.cuda_graphs", True),
        ({"compile_regions": True}, "engine.compile", True),
        ({"seed": 7, "data_seed": 7}, "train.seed", 7),
        ({"save_strategy": "no"}, "train.save_every", "never"),
        ({"save_strategy": "epoch"}, "train.save_every", "epoch"),
        ({"save_steps": 50}, "train.save_every", 50),
        ({"save_steps": 50.0}, "train.save_every", 50),
        ({"save_total_limit": 3}, "train.save_keep", 3),
        ({"eval_strategy": "epoch"}, "train.eval_every", "epoch"),
        ({"eval_strategy": "steps"}, "train.eval_every", 500),
        ({"eval_strategy": "steps", "logging_steps": 20}, "train.eval_every", 20),
        ({"eval_strategy": "steps", "eval_steps": 30, "logging_steps": 20}, "train.eval_every", 30),
        ({"resume_from_checkpoint": "out/checkpoints/step-000002"}, "train.resume", "out/checkpoints/step-000002"),
        ({"resume_from_checkpoint": "True"}, "train.resume", "auto"),
        ({"fp16": True}, "engine.precision", "fp16"),
        ({"bf16": True, "fp16": False}, "engine.precision", "bf16"),
        ({"gradient_checkpointing": True}, "engine.activation_checkpointing", True),
        ({"torch_compile": True}, "engine.compile", True),
        ({"deepspeed": "ds.json"}, "engine.deepspeed", "ds.json"),
        ({"deepspeed": "ds.json"}, "engine.backend", "deepspeed"),
        ({"deepspeed": "ds.json"}, "engine.precision", "auto"),
        ({"train_sampling_strategy": "group_by_length"}, "batch.order", "length_grouped"),
        ({"global_batch_size": 48}, "batch.global_size", 48),
        ({"global_batch_tokens": 4096}, "batch.global_tokens", 4096),
        ({"warmup_steps": 0.1, "weight_decay": 0.01}, "trainer", {"warmup_steps": 0.1, "weight_decay": 0.01}),
        ({"report_to": ["tensorboard"], "run_name": "a"}, "trainer", {"report_to": ["tensorboard"], "run_name": "a"}),
        ({"token": None, "hub_model_id": None}, "trainer", {}),
    ],
)
def test_a_flag_becomes_a_key(flags: dict[str, Any], key: str, value: Any) -> None:
    found: Any = run_of(**flags)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(("device", "steps", "ranks", "size"), [(8, 1, 1, 8), (8, 1, 4, 32), (16, 4, 2, 128)])
def test_the_global_batch_is_device_x_accumulation_x_ranks(device: int, steps: int, ranks: int, size: int) -> None:
    run = run_of(ranks, per_device_train_batch_size=device, gradient_accumulation_steps=steps)
    assert run.batch.global_size == size


def test_mnli_cuts_both_of_its_evaluation_splits() -> None:
    run = run_of(task_name="mnli", max_eval_samples=9)
    assert run.data.first_rows == {"validation_matched": 9, "validation_mismatched": 9}


def test_what_is_to_be_done() -> None:
    found = asked(do_eval=True, do_predict=True, overwrite_output_dir=True, logging_dir="tb", overwrite_cache=True)
    assert (found.train, found.evaluate, found.predict, found.overwrite) == (True, True, True, True)
    assert (found.name, found.logging_dir) == ("mrpc", "tb")
    assert found.notes == ("--overwrite_cache changes nothing: a store belongs to its text and is never stale",)
    assert asked(eval_strategy="epoch").evaluate, "as transformers has it"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"model_name_or_path": None}, "--model_name_or_path is missing"),
        ({"do_train": False}, "there is nothing to do"),
        ({"task_name": "mrcp"}, "--task_name 'mrcp' is not one of the script's tasks: did you mean 'mrpc'"),
        ({"task_name": "ax"}, "--task_name 'ax' is not one of"),
        ({"task_name": None}, "exclude each other, and none of them is there"),
        ({"train_file": "a.csv"}, "--task_name and --train_file is there: write one"),
        ({"task_name": None, "train_file": "a.csv", "do_eval": True}, "--do_eval needs --validation_file"),
        ({"task_name": None, "train_file": "a.csv", "do_predict": True}, "--do_predict needs --test_file"),
        ({"test_file": "a.csv"}, "need --train_file"),
        ({"task_name": None, "dataset_name": "x", "glue_dir": "files"}, "--glue_dir needs --task_name"),
        ({"dataset_config_name": "x"}, "--dataset_config_name needs --dataset_name"),
        ({"fp16": True, "bf16": True}, "--fp16 and --bf16 exclude each other"),
        ({"save_steps": 0.1}, "--save_steps 0.1 cannot be honoured: write a whole number"),
        ({"save_strategy": "best"}, "--save_strategy 'best' cannot be honoured"),
        ({"tokenizer_name": "other"}, "--tokenizer_name 'other' cannot be honoured: only 'bert-base-uncased'"),
        ({"data_seed": 7}, "--data_seed 7 cannot be honoured: only 42"),
        ({"push_to_hub": True}, "--push_to_hub True cannot be honoured: upload afterwards"),
        ({"fsdp": "full_shard"}, "--fsdp 'full_shard' cannot be honoured"),
        ({"model_revision": "v2"}, "--model_revision 'v2' cannot be honoured: download that revision"),
        ({"use_fast_tokenizer": False}, "--use_fast_tokenizer False cannot be honoured"),
        ({"dataloader_drop_last": True}, "--dataloader_drop_last True cannot be honoured"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        asked(**flags)
    assert said in str(refused.value)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        asked(model_name_or_path=None, push_to_hub=True, fp16=True, bf16=True)
    assert len(refused.value.messages) == 3


@pytest.mark.parametrize("flag", ["added_next_year", "save_stock_state"])
def test_a_flag_without_a_place_is_refused(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"--{flag} .*cannot be honoured"):
        asked(**{flag: True})


def test_every_argument_has_one_place() -> None:
    allowed = set(ALLOWED_VALUES) - {"save_strategy", "train_sampling_strategy"}
    tables = [set(RUN_FILE_KEYS), set(WITHOUT_EFFECT), allowed, set(READ_HERE)]
    for index, table in enumerate(tables):
        for other in tables[index + 1 :]:
            assert table & other == set()
    owned = ("local_rank", "label_names")  # what launchers write, and a key of ALLOWED_VALUES
    elsewhere = set().union(*tables) | set(DEFAULTS) | set(owned)
    installed = {field.name for field in fields(TrainingArguments) if field.init}
    assert installed - elsewhere - set(HONOURED_TRAINER_FIELDS) == set()
    passed_on = set(HONOURED_TRAINER_FIELDS) - elsewhere
    values: dict[str, Any] = dict.fromkeys(passed_on, 1)
    values["metric_for_best_model"] = "accuracy"
    text = ("lr_scheduler_type", "optim", "run_name")
    build_run(asked(**values | dict.fromkeys(text, "a")).tree)  # refuses a field that another section decides


CUSTOM = {
    "model_name_or_path": "bert-base-uncased",
    "do_train": True,
    "train_file": "a.csv",
    "validation_file": "b.csv",
}


def test_a_file_of_ones_own() -> None:
    seen: list[Path] = []

    def infer(path: Path) -> InferredTask:
        seen.append(path)
        return InferredTask(("text",), ("no", "yes"))

    found = translate(CUSTOM | {"do_eval": True, "max_eval_samples": 3}, 1, infer, _nothing)
    task = resolve_task(build_run(found.tree))
    assert (task.columns, task.labels, task.metrics) == (("text",), ("no", "yes"), ("accuracy",))
    assert found.tree["data"]["source"] == {"train": "a.csv", "validation": "b.csv"}
    assert found.tree["data"]["first_rows"] == {"validation": 3}
    assert (seen, found.name) == ([Path("a.csv")], "None")


def test_numbers_are_a_regression_judged_by_the_squared_error() -> None:
    found = translate(CUSTOM, 1, lambda _: InferredTask(("a", "b"), ()), _nothing)
    task = resolve_task(build_run(found.tree))
    assert (task.regression, task.metrics, task.columns) == (True, ("mse",), ("a", "b"))


def test_a_data_set_of_the_hub() -> None:
    flags = {"model_name_or_path": "m", "do_train": True, "dataset_name": "someone/reviews"}
    found = translate(flags, 1, _nothing, lambda *_: InferredTask(("text",), ("bad", "good")))
    assert found.tree["data"]["source"] == "hub:someone/reviews"
    assert found.tree["task"]["name"] == "reviews"
    glue = translate(flags | {"dataset_name": "nyu-mll/glue", "dataset_config_name": "rte"}, 1, _nothing, _nothing)
    assert (glue.tree["task"], glue.tree["data"]["source"]) == ({"name": "rte"}, "hub:nyu-mll/glue")


@pytest.mark.parametrize(
    ("name", "text", "shape"),
    [
        ("a.csv", 'id_text,label\n"one, two",1\n"a\nb",0\n', InferredTask(("id_text",), ("0", "1"))),
        (
            "a.csv",
            "sentence2,x,sentence1,label\na,b,c,up\nd,e,f,down\n",
            InferredTask(("sentence1", "sentence2"), ("down", "up")),
        ),
        ("a.csv", "x,y,z,label\na,b,c,1.5\nd,e,f,2\n", InferredTask(("x", "y"), ())),
        ("a.tsv", 'x\tlabel\n"a\t1\nb\t0\n', InferredTask(("x",), ("0", "1"))),
        ("a.json", '{"x": "a", "label": "yes"}\n{"x": "b", "label": "no"}\n', InferredTask(("x",), ("no", "yes"))),
    ],
)
def test_a_file_tells_its_task(tmp_path: Path, name: str, text: str, shape: InferredTask) -> None:
    (tmp_path / name).write_text(text)
    assert infer_from_file(tmp_path / name) == shape


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "x", "a file that ends in '.txt' cannot be read"),
        ("a.csv", "x,y\na,b\n", "no column 'label'; the columns there are 'x', 'y'"),
        ("a.csv", "label\n1\n0\n", "no column with text beside 'label'"),
        ("a.csv", "x,label\na,1\nb,1\n", r"its labels are \['1'\], and a task has two classes"),
        ("a.csv", 'x,label\n"a,1\n', "line 2: broken CSV"),
        ("a.json", "[1]\n", "line 1: '.1.' is not a JSON object"),
    ],
)
def test_a_file_that_tells_no_task_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        infer_from_file(tmp_path / name)
    with pytest.raises(DataError, match=r"no\.csv: no such file"):
        infer_from_file(tmp_path / "no.csv")


def test_a_folder_in_the_hubs_form_tells_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "test.csv").write_text("text,label\na,1\n")
    with pytest.raises(DataError, match="has no split 'train', only test"):
        infer_from_hub(str(folder), "reviews")
    (folder / "train.csv").write_text("text,label\na,1\nb,0\n")
    assert infer_from_hub(str(folder), "reviews") == InferredTask(("text",), ("0", "1"))


def test_the_run_file_that_is_shown_is_the_run(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"output_dir": "out", "do_eval": True, "max_train_samples": 5, "weight_decay": 0.01}
    found = asked(2, **flags)
    run = build_run(found.tree)
    text = run_file_text(found, run, 2)
    (tmp_path / "run.toml").write_text(text)
    assert load_run(tmp_path / "run.toml") == run
    assert "ftsys train RUN.toml" in text
    assert "batch.global_size = 16 is for 2 ranks, 8 each" in text
    assert "watchdog" not in text, "what nobody asked for is left out"
