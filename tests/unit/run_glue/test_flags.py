"""Tests parsing of the example script's flags, from arguments and from a file, and the refused ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftsys.errors import ConfigError
from ftsys.run_glue.flags import read_flags


def flags(*words: str) -> dict[str, Any]:
    return read_flags(words)[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--task_name", "mrpc"], {"task_name": "mrpc"}),
        (["--max-seq-length=64"], {"max_seq_length": 64}),
        (["--do_train", "--do_eval", "True", "--fp16", "false"], {"do_train": True, "do_eval": True, "fp16": False}),
        (["--no_use_fast_tokenizer"], {"use_fast_tokenizer": False}),
        (["--max_steps", "-1", "--learning_rate", "2e-5"], {"max_steps": -1, "learning_rate": 2e-5}),
        (["--report_to", "tensorboard", "wandb"], {"report_to": ["tensorboard", "wandb"]}),
        (
            ["--lr_scheduler_type", "cosine", "--eval_strategy", "epoch"],
            {"lr_scheduler_type": "cosine", "eval_strategy": "epoch"},
        ),
        (["--lr_scheduler_kwargs", '{"num_cycles": 2}'], {"lr_scheduler_kwargs": {"num_cycles": 2}}),
        (["--deepspeed", "ds.json"], {"deepspeed": "ds.json"}),
        (["--global_batch_size", "64"], {"global_batch_size": 64}),
        (["--local_rank", "1"], {}),
        (["--overwrite_output_dir"], {"overwrite_output_dir": True}),
    ],
)
def test_words(words: list[str], expected: dict[str, Any]) -> None:
    assert flags(*words) == expected


@pytest.mark.parametrize(
    ("words", "expected", "said"),
    [
        (["--evaluation_strategy", "steps"], {"eval_strategy": "steps"}, "write eval_strategy"),
        (["--warmup_ratio", "0.06"], {"warmup_steps": 0.06}, "write warmup_steps"),
        (["--no_cuda"], {"use_cpu": True}, "write use_cpu"),
        (["--group_by_length"], {"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy"),
        (["--per_gpu_train_batch_size", "4"], {"per_device_train_batch_size": 4}, "per_device_train_batch_size"),
    ],
)
def test_names_of_transformers_4(words: list[str], expected: dict[str, Any], said: str) -> None:
    found, told = read_flags(words)
    assert found == expected
    assert len(told) == 1
    assert said in told[0]


def test_one_json_file_is_the_same(tmp_path: Path) -> None:
    tree = {"task_name": "mrpc", "do_train": True, "learning_rate": 3e-5, "report_to": ["none"], "run_name": None}
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(tree | {"lr_scheduler_kwargs": {"num_cycles": 2}, "max_steps": -1}))
    words = ["--task_name", "mrpc", "--do_train", "--learning_rate", "3e-5", "--report_to", "none", "--max_steps", "-1"]
    assert flags(str(path)) == flags(*words, "--lr_scheduler_kwargs", '{"num_cycles": 2}')


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task_nam", "mrpc"], r"'--task_nam' is not a flag of run-glue: did you mean --task_name\."),
        (["--evaluaton_strategy=epoch"], "did you mean --evaluation_strategy"),
        (["--seed", "many"], "--seed.*invalid int value: 'many'"),
        (["--fp16", "maybe"], "--fp16.*got maybe but expected one of"),
        (["--lr_scheduler_type", "zigzag"], "--lr_scheduler_type.*'?zigzag"),
        (["--learning_rate"], "--learning_rate.*expected one argument"),
        (["mrpc"], "'mrpc' belongs to no flag"),
        (["--lr_scheduler_kwargs", "{num: 2}"], "--lr_scheduler_kwargs '{num: 2}' is not JSON"),
        (["--warmup_ratio", "2"], r"warmup_ratio=2 cannot be used"),
        (["--warmup_ratio", "0.1", "--warmup_steps", "5"], "'warmup_ratio' and 'warmup_steps'"),
        (["--save_safetensors", "False"], "save_safetensors=False cannot be used"),
        (["nowhere.json"], "'nowhere.json' cannot be read"),
    ],
)
def test_wrong_words_are_named(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        flags(*words)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1]", "holds list, not an object"), ("{", "is not JSON"), ('{"sed": 1}', "'--sed' is not a flag.*--seed")],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "flags.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        flags(str(path))


def test_several_mistakes_are_told_together() -> None:
    with pytest.raises(ConfigError) as refused:
        flags("--sed", "1", "--task", "mrpc")
    assert len(refused.value.messages) >= 2
