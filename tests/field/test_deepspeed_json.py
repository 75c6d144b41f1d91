"""DeepSpeed JSON files as people have them: "auto" everywhere, an optimizer block, a scheduler, defaults left out.

One line a case, with the right value in it. The all-"auto" file is that of Hugging Face's documentation.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from ftsys.config import RunConfig, build_run
from ftsys.errors import ConfigError
from ftsys.train.deepspeed_setup import check_deepspeed_file
from launcher.planner.deepspeed_config import conflicts, merged_config
from launcher.planner.deepspeed_notes import compiled_ops, notes_on_json
from launcher.planner.plan import Plan, World, make_plan
from tests.end_to_end.attempts import make_project, start

Json = dict[str, Any]
GPUS = World(ranks=8, local_ranks=8, device="cuda", bf16_supported=True)
ROWS = 3668  # MRPC: 115 steps of 32 an epoch, 345 in all


def auto(*names: str) -> Json:
    return dict.fromkeys(names, "auto")


def scheduler(kind: str, **params: Any) -> Json:
    return {"scheduler": {"type": kind, "params": auto("warmup_min_lr", "warmup_max_lr", "warmup_num_steps") | params}}


def adamw(**params: Any) -> Json:
    return {"optimizer": {"type": "AdamW", "params": auto("lr", "betas", "eps", "weight_decay") | params}}


def zero(stage: int, **more: Any) -> Json:
    return {"zero_optimization": {"stage": stage, **more}}


SIZES = auto("gradient_accumulation_steps", "gradient_clipping", "train_batch_size", "train_micro_batch_size_per_gpu")
SWITCHES: Json = {"bf16": auto("enabled"), "fp16": auto("enabled")}
BUCKETS = auto("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold")
ALL_AUTO = {**SIZES, **SWITCHES, **adamw(), **scheduler("WarmupDecayLR", total_num_steps="auto"), **zero(2)}
WARM_UP, TOTAL = "scheduler.params.warmup_num_steps", "scheduler.params.total_num_steps"
ABSENT = object()


def planned(user_json: Json, rows: int | None = ROWS, world: World = GPUS, **sections: Any) -> tuple[RunConfig, Plan]:
    sections["engine"] = {"backend": "deepspeed", "deepspeed": "ds.json", **sections.get("engine", {})}
    run = build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, **sections})
    return run, make_plan(run, world, rows, deepspeed_json=user_json)


def at(tree: Any, key: str) -> Any:
    for name in key.split("."):
        if name not in tree:
            return ABSENT
        tree = tree[name]
    return tree


@pytest.mark.parametrize(
    ("user_json", "sections", "key", "value"),
    [
        (ALL_AUTO, {}, WARM_UP, 1),  # DeepSpeed takes no 0
        (ALL_AUTO, {"trainer": {"warmup_steps": 5}}, WARM_UP, 5),
        (ALL_AUTO, {"trainer": {"warmup_steps": 0.1}}, WARM_UP, 35),
        (ALL_AUTO, {"trainer": {"warmup_steps": 0.1}, "rows": None}, WARM_UP, "auto"),  # not DeepSpeed's own 1,000
        (ALL_AUTO, {}, TOTAL, 345),
        (ALL_AUTO, {"rows": None}, TOTAL, "auto"),
        (ALL_AUTO, {"train": {"max_steps": 7}}, TOTAL, 7),
        (ALL_AUTO, {"train": {"learning_rate": 1e-4}}, "scheduler.params.warmup_max_lr", 1e-4),
        (ALL_AUTO, {"train": {"learning_rate": 1e-4}}, "optimizer.params.lr", 1e-4),
        (ALL_AUTO, {"trainer": {"adam_beta2": 0.98}}, "optimizer.params.betas", [0.9, 0.98]),
        (ALL_AUTO, {}, "gradient_clipping", 1.0),
        (ALL_AUTO, {"trainer": {"max_grad_norm": 0}}, "gradient_clipping", 0.0),
        (ALL_AUTO, {}, "train_micro_batch_size_per_gpu", 4),
        (ALL_AUTO, {}, "train_batch_size", ABSENT),
        (ALL_AUTO, {}, "gradient_accumulation_steps", 1),
        (ALL_AUTO, {}, "bf16.enabled", True),
        (ALL_AUTO, {"world": World(device="cuda")}, "bf16.enabled", False),
        ({"fp16": auto("enabled", "loss_scale")}, {"engine": {"precision": "fp16"}}, "fp16.loss_scale", 0),
        ({**zero(2, **BUCKETS)}, {}, "zero_optimization.reduce_bucket_size", 50_000_000),
        ({**zero(3, **BUCKETS)}, {}, "zero_optimization.stage3_param_persistence_threshold", 100_000),
        ({**zero(0, **BUCKETS)}, {}, "zero_optimization.reduce_bucket_size", ABSENT),
        ({"gradient_clipping": 0.3}, {"trainer": {"max_grad_norm": 0.3}}, "gradient_clipping", 0.3),
        ({**zero(1)}, {"trainer": {"max_grad_norm": 0.3}}, "gradient_clipping", 0.3),  # silent: not DeepSpeed's 1.0
        ({"bf16": "auto", "scheduler": "auto"}, {}, "scheduler", ABSENT),
    ],
)
def test_auto_becomes_the_runs_own_value(user_json: Json, sections: Json, key: str, value: Any) -> None:
    assert at(merged_config(user_json, *planned(user_json, **sections)), key) == value


@pytest.mark.parametrize(
    ("user_json", "sections", "said"),
    [
        (scheduler("WarmupLR", warmup_num_steps=0), {}, "says 0, the run 1 (trainer.warmup_steps = 0, and DeepSpeed"),
        (
            scheduler("WarmupLR", warmup_num_steps=9),
            {"trainer": {"warmup_steps": 5}},
            "says 9, the run 5 (train",
        ),
        (scheduler("WarmupDecayLR", total_num_steps=9), {}, "says 9, the run 345 (train.epochs or train.max_steps)"),
        ({"bf16": {"enabled": "auto", "check_grad_overflow": False}}, {}, "the run True (train.max_nonfinite_steps)"),
        ({"gradient_accumulation_steps": 4}, {}, "says 4, the run 1"),
        ({"train_batch_size": "32"}, {}, "has the text '32' where a value is meant: write 32 or"),
    ],
)
def test_what_differs_from_the_run_is_refused_with_both_values(user_json: Json, sections: Json, said: str) -> None:
    (message,) = conflicts(user_json, *planned(user_json, **sections))
    assert said in message


@pytest.mark.parametrize(
    ("user_json", "sections"),
    [
        (scheduler("WarmupLR", warmup_num_steps=1), {}),  # what transformers writes for no warm-up
        (scheduler("WarmupLR", warmup_num_steps=0), {"trainer": {"warmup_steps": 0.1}, "rows": None}),
        ({"bf16": {"enabled": False, "check_grad_overflow": False}}, {"engine": {"precision": "fp32"}}),
        (ALL_AUTO, {"trainer": {"warmup_steps": 0.5}}),
    ],
)
def test_what_equals_the_run_is_not_refused(user_json: Json, sections: Json) -> None:
    assert conflicts(user_json, *planned(user_json, **sections)) == []


OFFLOADED = {"offload_optimizer": {"device": "cpu"}}


@pytest.mark.parametrize(
    ("user_json", "ops"),
    [
        (ALL_AUTO, ("fused_adam",)),
        (adamw(torch_adam=True), ()),
        (adamw(torch_adam="true"), ("fused_adam",)),
        ({**adamw(), **zero(2, **OFFLOADED)}, ("cpu_adam",)),
        (zero(2, **OFFLOADED), ("cpu_adam",)),  # accelerate puts DeepSpeedCPUAdam in the place of torch's AdamW
        ({**zero(2, **OFFLOADED), "zero_force_ds_cpu_optimizer": False}, ()),
        ({"optimizer": {"type": "Lion"}}, ("fused_lion",)),
        ({"optimizer": {"type": "SGD"}}, ()),
        (zero(3, offload_param={"device": "nvme"}), ("async_io",)),
        ({"optimizer": "auto"}, ()),
        ({}, ()),
    ],
)
def test_ops_that_deepspeed_compiles(user_json: Json, ops: tuple[str, ...]) -> None:
    assert compiled_ops(user_json) == ops


@pytest.mark.parametrize(
    ("user_json", "said"),
    [
        (ALL_AUTO, "scheduler.params.warmup_num_steps = 1"),
        (ALL_AUTO, "scheduler (WarmupDecayLR) decides the learning rate"),
        (ALL_AUTO, "optimizer (AdamW) takes the place of trainer.optim"),
        (ALL_AUTO, 'compiles fused_adam on first use, which takes minutes: "torch_adam": true'),
        (zero(3, sub_group_size="auto"), "leaves DeepSpeed's own default: zero_optimization.sub_group_size"),
        (
            {"optimizer": {"type": "Lion"}},
            "compiles fused_lion on first use, which takes minutes: without",
        ),
    ],
)
def test_the_plan_says_what_the_file_changes(user_json: Json, said: str) -> None:
    assert said in "\n".join(notes_on_json(user_json, *planned(user_json)))


def test_the_plan_says_nothing_of_a_file_that_changes_nothing() -> None:
    assert notes_on_json(zero(2), *planned(zero(2))) == []


# Whole runs


TORCH_ADAM = adamw(torch_adam=True)
TRAINED = {
    "no optimizer": {**SIZES, **SWITCHES, **scheduler("WarmupLR"), **zero(2, **BUCKETS)},
    "torch's AdamW": {
        **SIZES,
        **SWITCHES,
        **TORCH_ADAM,
        **scheduler("WarmupDecayLR", total_num_steps="auto"),
        **zero(1),
    },
    "cosine": {
        **SIZES,
        **TORCH_ADAM,
        **zero(0),
        "scheduler": {"type": "WarmupCosineLR", "params": auto("total_num_steps")},
    },
}


@pytest.mark.parametrize("name", TRAINED)
def test_files_full_of_auto_train(name: str, tmp_path: Path, minilm_folder: Path) -> None:
    make_project(tmp_path, minilm_folder)
    (tmp_path / "ds.json").write_text(json.dumps(TRAINED[name]))
    attempt = start(tmp_path, 1, ["--engine.deepspeed", "ds.json", "--train.max_steps", "4"])
    assert attempt.statuses() == [0], attempt.log()
    assert "note: " in attempt.log()


def made(section: str, kind: str, **params: object) -> Json:
    return {section: {"type": kind, "params": params}}


REFUSED: list[tuple[Json, str]] = [
    ({"aio": "x"}, "AttributeError: 'str' object has no attribute 'get'"),
    ({"comms_logger": 7}, "must be a mapping, not int"),
    ({"elasticity": {"enabled": True}}, "elasticity"),
    (zero(1, reduce_bucket_size="x"), "reduce_bucket_size"),
    (zero(1, bucket_size=7), "bucket_size Extra inputs are not permitted"),
    ({"communication_data_type": "x"}, "Invalid communication_data_type"),
    (made("scheduler", "Foo"), "scheduler.type='Foo' is no scheduler of DeepSpeed or torch.optim.lr_scheduler"),
    (made("scheduler", "WarmupLR", foo=1), "unexpected keyword argument 'foo'"),
    (made("scheduler", "WarmupLR", warmup_min_lr="x"), "TypeError"),
    (made("scheduler", "StepLR"), "step_size"),
    (made("optimizer", "Foo"), "optimizer.type='Foo' is no optimizer of DeepSpeed or torch.optim"),
    (made("optimizer", "AdamW", lr="auto", foo=1), "optimizer.params: Adam has no foo"),
    (made("optimizer", "Adam", lr="auto", max_grad_norm=1.0), "optimizer.params: Adam has no max_grad_norm"),
    (made("optimizer", "SGD", lr="auto", foo=1), "unexpected keyword argument 'foo'"),
]


@pytest.mark.parametrize(("user_json", "said"), REFUSED, ids=str)
def test_what_deepspeed_does_not_take_is_refused_with_its_words(user_json: Json, said: str, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps(user_json))
    engine = {"backend": "deepspeed", "deepspeed": str(tmp_path / "ds.json")}
    run, plan = planned(user_json, engine=engine, world=World())
    with pytest.raises(ConfigError) as refused:
        check_deepspeed_file(run, plan)
    assert f"engine.deepspeed='{tmp_path}/ds.json': DeepSpeed cannot use this file (" in str(refused.value)
    assert said in str(refused.value)


TAKEN: list[Json] = [
    made("scheduler", "WarmupLR", warmup_min_lr="auto", warmup_max_lr="auto", warmup_num_steps="auto"),
    made("scheduler", "WarmupDecayLR", warmup_num_steps="auto", total_num_steps="auto"),
    made("scheduler", "WarmupCosineLR", total_num_steps="auto", warmup_num_steps="auto"),
    made("scheduler", "OneCycle", cycle_min_lr=1e-5, cycle_max_lr=1e-4),
    made("scheduler", "LRRangeTest"),
    made("scheduler", "StepLR", step_size=10),
    made("optimizer", "AdamW", **auto("lr", "betas", "eps", "weight_decay"), torch_adam=True, adam_w_mode=True),
    made("optimizer", "Adam", bias_correction=True, fp32_optimizer_states=False, foreach=False),
    made("optimizer", "Lamb", lr="auto", max_coeff=10.0),
    made("optimizer", "SGD", lr="auto", momentum=0.9),
    made("optimizer", "Adagrad", lr="auto"),
]


@pytest.mark.parametrize("user_json", [ALL_AUTO, zero(2), {}, *TRAINED.values(), *TAKEN], ids=str)
def test_what_deepspeed_takes_is_taken(user_json: Json, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps(user_json))
    check_deepspeed_file(*planned(user_json, engine={"deepspeed": str(tmp_path / "ds.json")}, world=World()))


def test_it_is_refused_before_the_folder_is_claimed(tmp_path: Path, minilm_folder: Path) -> None:
    make_project(tmp_path, minilm_folder)
    (tmp_path / "ds.json").write_text(json.dumps({"aio": "x"}))
    attempt = start(tmp_path, 1, ["--engine.deepspeed", "ds.json"])
    assert attempt.statuses() == [2], attempt.log()
    assert "DeepSpeed cannot use this file" in attempt.log()
    assert "Traceback" not in attempt.log()
    assert not list(tmp_path.rglob("status.json"))


def test_the_lock_of_a_dead_process_is_named_before_it_hangs_the_run(
    tmp_path: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path, minilm_folder)
    (tmp_path / "ds.json").write_text(json.dumps(ALL_AUTO))
    lock = locked(tmp_path, "fused_adam")
    attempt = start(tmp_path, 1, ["--engine.deepspeed", "ds.json"], prepare=(own_extensions, str(tmp_path / "ops")))
    assert attempt.statuses() == [2], attempt.log()
    assert f"rm {lock}" in attempt.log()


def own_extensions(rank: int, folder: str) -> None:
    import os

    os.environ["TORCH_EXTENSIONS_DIR"] = folder


def locked(folder: Path, op: str) -> Path:
    lock = folder / "ops" / op / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    return lock
