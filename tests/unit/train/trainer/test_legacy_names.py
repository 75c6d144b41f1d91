"""Names of transformers 4: accepted with their old meaning, or refused by name."""

import copy
import dataclasses
import inspect
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import transformers

from ftsys.train.trainer.arguments import TrainingArguments
from ftsys.train.trainer.legacy_names import OLD_ARGUMENTS

# Every field that the last release of transformers 4 or an earlier one had, and release 5.23 has no longer.
DROPPED = """
    adafactor dispatch_batches evaluate_during_training evaluation_strategy fp16_backend fp16_opt_level
    fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap group_by_length half_precision_backend
    include_inputs_for_metrics include_tokens_per_second jit_mode_eval logging_dir mp_parameters no_cuda
    overwrite_output_dir past_index per_gpu_eval_batch_size per_gpu_train_batch_size push_to_hub_model_id
    push_to_hub_organization push_to_hub_token ray_scope save_safetensors sharded_ddp split_batches torchdynamo
    tpu_metrics_debug tpu_num_cores use_ipex use_legacy_prediction_loop use_mps_device warmup_ratio xpu_backend
""".split()


def made(folder: Path, **named: Any) -> TrainingArguments:
    """Arguments without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return TrainingArguments(str(folder), use_cpu=True, **named)


def test_the_table_has_what_was_dropped_and_nothing_that_is_there() -> None:
    fields = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    assert set(OLD_ARGUMENTS) == set(DROPPED)
    assert set(OLD_ARGUMENTS) & fields == set()


@pytest.mark.parametrize(
    ("old", "today"),
    [
        ({"evaluation_strategy": "epoch"}, {"eval_strategy": "epoch"}),
        ({"evaluate_during_training": True, "eval_steps": 5}, {"eval_strategy": "steps", "eval_steps": 5}),
        ({"group_by_length": True}, {"train_sampling_strategy": "group_by_length"}),
        ({"group_by_length": False}, {"train_sampling_strategy": "random"}),
        ({"warmup_ratio": 0.1}, {"warmup_steps": 0.1}),
        ({"warmup_ratio": 0.0}, {"warmup_steps": 0}),
        ({"per_gpu_train_batch_size": 3}, {"per_device_train_batch_size": 3}),
        ({"per_gpu_eval_batch_size": 3}, {"per_device_eval_batch_size": 3}),
        ({"per_gpu_eval_batch_size": None}, {"per_device_eval_batch_size": 8}),
        ({"adafactor": True}, {"optim": "adafactor"}),
        ({"include_inputs_for_metrics": True}, {"include_for_metrics": ["inputs"]}),
        ({"include_tokens_per_second": True}, {"include_num_input_tokens_seen": "all"}),
        ({"push_to_hub_model_id": "name"}, {"hub_model_id": "name"}),
        ({"push_to_hub_token": "word"}, {"hub_token": "word"}),
        ({"fsdp_min_num_params": 0}, {"fsdp_config": None}),
        ({"tpu_metrics_debug": True}, {"debug": "tpu_metrics_debug"}),
        ({"torchdynamo": None}, {"torch_compile": False}),
        ({"save_safetensors": True, "use_mps_device": False, "past_index": -1, "ray_scope": "last"}, {}),
        ({"jit_mode_eval": False, "use_ipex": False, "sharded_ddp": "", "mp_parameters": ""}, {}),
        ({"fp16_backend": "auto", "half_precision_backend": "cpu_amp", "fp16_opt_level": "O1"}, {}),
    ],
    ids=lambda given: ",".join(given),
)
def test_an_old_name_means_what_it_did(old: dict[str, Any], today: dict[str, Any], tmp_path: Path) -> None:
    assert made(tmp_path, **old).to_dict() == made(tmp_path, **today).to_dict()


def test_keys_of_a_dictionary_join_those_that_are_given(tmp_path: Path) -> None:
    arguments = made(tmp_path, split_batches=False, dispatch_batches=True, accelerator_config={"even_batches": False})
    config = arguments.accelerator_config
    assert (config.split_batches, config.dispatch_batches, config.even_batches) == (False, True, False)


def test_a_whole_run_of_warm_up_is_not_one_step(tmp_path: Path) -> None:
    assert made(tmp_path, warmup_ratio=1.0).get_warmup_steps(7) == 7


def test_what_scripts_read_back_is_kept(tmp_path: Path) -> None:
    arguments = made(tmp_path, logging_dir="boards", overwrite_output_dir=True)
    assert (arguments.logging_dir, arguments.overwrite_output_dir) == ("boards", True)
    assert (made(tmp_path).logging_dir, made(tmp_path).overwrite_output_dir) == (None, False)


@pytest.mark.parametrize("name", ["evaluation_strategy", "no_cuda", "save_safetensors", "tpu_num_cores"])
def test_one_warning_gives_todays_name(name: str, tmp_path: Path) -> None:
    value = {"evaluation_strategy": "no", "tpu_num_cores": 8}.get(name, True)
    expected = {"evaluation_strategy": "write eval_strategy", "no_cuda": "write use_cpu"}.get(name, "leave it out")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given: dict[str, Any] = {name: value} if name == "no_cuda" else {"use_cpu": True, name: value}
        TrainingArguments(str(tmp_path), **given)
    (warning,) = [each for each in caught if each.category is FutureWarning]
    assert f"'{name}'" in str(warning.message)
    assert expected in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("save_safetensors", False),
        ("jit_mode_eval", True),
        ("use_ipex", True),
        ("use_legacy_prediction_loop", True),
        ("past_index", 2),
        ("half_precision_backend", "apex"),
        ("fp16_backend", "apex"),
        ("mp_parameters", "partitions=2"),
        ("sharded_ddp", "zero_dp_2"),
        ("push_to_hub_organization", "us"),
        ("ray_scope", "all"),
        ("warmup_ratio", 1.5),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"TrainingArguments: {name}={value!r} cannot be used: \w+"):
        made(tmp_path, **{name: value})


def test_both_names_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="got both 'evaluation_strategy' and 'eval_strategy'"):
        made(tmp_path, evaluation_strategy="epoch", eval_strategy="epoch")


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("learning_rat", "learning_rate"), ("evalution_strategy", "evaluation_strategy"), ("micro_token", "micro_tokens")],
)
def test_a_misspelt_argument_names_the_nearest(wrong: str, near: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"has no argument {wrong!r}: did you mean {near!r}"):
        made(tmp_path, **{wrong: 1})


def test_it_is_a_dataclass_as_the_stock_one_is(tmp_path: Path) -> None:
    arguments: Any = made(tmp_path, learning_rate=1e-3, micro_tokens=512)
    assert dataclasses.replace(arguments, learning_rate=1e-4).learning_rate == 1e-4
    assert dataclasses.replace(arguments, learning_rate=1e-4).micro_tokens == 512
    (parsed,) = transformers.HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--eval_strategy", "epoch", "--use_cpu"]
    )
    assert isinstance(parsed, TrainingArguments)
    assert parsed.eval_strategy == "epoch"
    assert '"micro_tokens": 512' in arguments.to_json_string()


def test_a_subclass_takes_the_old_names_too(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Own(TrainingArguments):
        ours: int = 3

    arguments: Any = Own(str(tmp_path), use_cpu=True, ours=4)
    assert (arguments.ours, arguments.micro_tokens) == (4, 16_384)
    with pytest.warns(FutureWarning, match="Own: 'evaluation_strategy' is a name of transformers 4"):
        old: Any = Own(str(tmp_path), use_cpu=True, evaluation_strategy="epoch")
    assert old.eval_strategy == "epoch"
    with pytest.raises(TypeError, match="Own has no argument 'our': did you mean 'ours'"):
        Own(str(tmp_path), our=4)


def test_a_subclass_with_a_constructor_of_its_own_is_called_as_it_wants(tmp_path: Path) -> None:
    class Own(TrainingArguments):
        def __init__(self, folder: str, **more: Any) -> None:
            self.extra = more.pop("extra")
            super().__init__(folder, use_cpu=True, **more)

    with pytest.warns(FutureWarning, match="'group_by_length'"):
        arguments = Own(folder=str(tmp_path), extra=3, group_by_length=True)
    assert (arguments.extra, arguments.train_sampling_strategy) == (3, "group_by_length")


def test_a_copy_keeps_what_was_given(tmp_path: Path) -> None:
    arguments = made(tmp_path, logging_dir="boards")
    assert copy.deepcopy(arguments).logging_dir == "boards"
    # the stock Trainer writes its arguments so, and worker processes are handed them so
    assert pickle.loads(pickle.dumps(arguments)).output_dir == str(tmp_path)
    names = list(inspect.signature(TrainingArguments).parameters)
    assert names[0] == "output_dir"
    assert "micro_tokens" in names
