"""Tests DeepSpeed's JSON: generated from a plan, equal to the shipped files, and compared with a user's own file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftsys.config import RunConfig, build_run
from ftsys.errors import ConfigError
from launcher.planner.deepspeed_config import (
    conflicts,
    deepspeed_config,
    file_name,
    merged_config,
    read_user_json,
    user_json_of,
)
from launcher.planner.plan import Plan, World, make_plan
from launcher.planner.shipped_configs import combinations, shipped_files

SHIPPED = Path(__file__).parents[4] / "configs/deepspeed"
GPUS = World(ranks=8, local_ranks=8, device="cuda", bf16_supported=True)


def planned(world: World = GPUS, json_file: Any = None, **sections: Any) -> tuple[RunConfig, Plan]:
    sections["engine"] = {"backend": "deepspeed", **sections.get("engine", {})}
    run = build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, **sections})
    return run, make_plan(run, world, 3668, deepspeed_json=json_file)


def test_the_whole_file_of_a_run() -> None:
    run, plan = planned(engine={"zero_stage": 2, "precision": "bf16"}, trainer={"max_grad_norm": 0.5})
    assert deepspeed_config(plan, run) == {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.5,
        "bf16": {"enabled": True, "check_grad_overflow": True},
        "fp16": {"enabled": False},
        "zero_optimization": {
            "stage": 2,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "wall_clock_breakdown": False,
    }


def test_the_fullest_ranks_share_is_the_batch_size() -> None:
    run, plan = planned(World(ranks=3))
    assert deepspeed_config(plan, run)["train_micro_batch_size_per_gpu"] == 11


def test_nothing_overlaps_on_a_cpu() -> None:
    run, plan = planned(World(), engine={"zero_stage": 1, "offload": "optimizer"})
    zero = deepspeed_config(plan, run)["zero_optimization"]
    assert zero["overlap_comm"] is False
    assert zero["offload_optimizer"] == {"device": "cpu", "pin_memory": False}
    assert "offload_param" not in zero


def test_stage_3_gathers_weights_when_saving() -> None:
    run, plan = planned(engine={"zero_stage": 3, "offload": "nvme:/disk"})
    zero = deepspeed_config(plan, run)["zero_optimization"]
    assert zero["stage3_gather_16bit_weights_on_model_save"] is True
    on_disk = {"device": "nvme", "pin_memory": True, "nvme_path": "/disk"}
    assert (zero["offload_optimizer"], zero["offload_param"]) == (on_disk, on_disk)


def test_fp16_scales_its_loss() -> None:
    run, plan = planned(engine={"precision": "fp16"})
    config = deepspeed_config(plan, run)
    assert config["fp16"] == {
        "enabled": True,
        "loss_scale": 0,
        "initial_scale_power": 16,
        "loss_scale_window": 1000,
        "hysteresis": 2,
        "min_loss_scale": 1,
    }
    assert config["bf16"] == {"enabled": False}


def test_another_backend_reads_no_such_file() -> None:
    run = build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, "engine": {"backend": "ddp"}})
    with pytest.raises(ConfigError, match="this run's backend is 'ddp'"):
        deepspeed_config(make_plan(run, GPUS), run)


def test_an_offload_that_a_users_stage_is_too_low_for() -> None:
    user_json = {"zero_optimization": {"stage": 1, "offload_param": {"device": "cpu"}}}
    run, plan = planned(engine={"offload": "parameters", "deepspeed": "mine.json"}, json_file=user_json)
    with pytest.raises(ConfigError, match=r"engine.offload='parameters' needs ZeRO stage 3 or above.* the plan has 1"):
        merged_config(user_json, run, plan)


def test_shipped_files_are_what_the_generator_makes() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in SHIPPED.glob("*.json")}
    assert found, f"no files in {SHIPPED}"
    assert found == shipped_files()


def test_every_combination_is_shipped() -> None:
    asked = list(combinations())
    assert len(asked) == len(set(asked)) == len(shipped_files())
    kinds = {(stage, precision) for stage, precision, _ in asked}
    assert kinds == {(stage, precision) for stage in range(4) for precision in ("bf16", "fp16", "fp32")}
    assert {offload.partition(":")[0] for _, _, offload in asked} == {"none", "optimizer", "parameters", "nvme"}


@pytest.mark.parametrize("name", sorted(shipped_files()))
def test_a_name_states_all_that_a_file_turns_on(name: str) -> None:
    config = json.loads(shipped_files()[name])
    zero = config["zero_optimization"]
    precision = next((kind for kind in ("bf16", "fp16") if config[kind]["enabled"]), "fp32")
    parts = [f"zero{zero['stage']}", precision]
    held = [what for what in ("optimizer", "param") if f"offload_{what}" in zero]
    if held:
        devices = {zero[f"offload_{what}"]["device"] for what in held}
        assert len(devices) == 1
        parts += ["offload", *("parameters" if what == "param" else what for what in held), *devices]
    assert name == "-".join(parts) + ".json"


@pytest.mark.parametrize("name", sorted(shipped_files()))
def test_deepspeed_accepts_a_shipped_file(name: str) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    user_json = json.loads((SHIPPED / name).read_text(encoding="utf-8"))
    stage, precision, offload = next(row for row in combinations() if _name_of(*row) == name)
    run, plan = planned(engine={"offload": offload, "deepspeed": name}, json_file=user_json)
    assert (plan.zero_stage, plan.precision) == (stage, precision)
    read = DeepSpeedConfig(merged_config(user_json, run, plan))
    assert read.zero_optimization_stage == stage
    assert (read.bfloat16_config.enabled, read.float16_config.enabled) == (precision == "bf16", precision == "fp16")
    assert (read.train_micro_batch_size_per_gpu, read.gradient_accumulation_steps) == (4, 1)
    assert read.gradient_clipping == 1.0


def _name_of(stage: int, precision: str, offload: str) -> str:
    _, plan = planned(engine={"zero_stage": stage, "precision": precision, "offload": offload})
    return file_name(plan)


def test_a_generated_file_conflicts_with_nothing() -> None:
    run, plan = planned(engine={"zero_stage": 3, "offload": "parameters", "precision": "fp16"})
    own = deepspeed_config(plan, run)
    assert conflicts(own, run, plan) == []
    assert merged_config(own, run, plan) == own


def test_an_empty_file_leaves_everything_to_the_run() -> None:
    run, plan = planned()
    assert merged_config({}, run, plan) == deepspeed_config(plan, run)


def test_auto_is_filled_from_the_run() -> None:
    run, plan = planned(train={"learning_rate": 1e-4}, trainer={"weight_decay": 0.1})
    user_json = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "zero_optimization": {"stage": "auto", "stage3_max_live_parameters": "auto"},
        "optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": "auto", "betas": "auto"}},
        "comms_logger": {"enabled": True},
    }
    merged = merged_config(user_json, run, plan)
    assert merged["train_micro_batch_size_per_gpu"] == 4
    assert "train_batch_size" not in merged
    assert merged["zero_optimization"] == {"stage": 0}
    assert merged["optimizer"]["params"] == {"lr": 1e-4, "weight_decay": 0.1, "betas": [0.9, 0.999]}
    assert merged["comms_logger"] == {"enabled": True}


def test_all_conflicts_are_listed_with_both_values() -> None:
    run, plan = planned(engine={"zero_stage": 1, "precision": "bf16"}, trainer={"warmup_steps": 5})
    user_json = {
        "train_batch_size": 64,
        "train_micro_batch_size_per_gpu": "4",
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 0.3,
        "fp16": {"enabled": True},
        "bf16": {"enabled": "true"},
        "zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}},
        "optimizer": {"params": {"lr": 1e-3, "betas": [0.9, 0.95]}},
        "scheduler": {"params": {"warmup_num_steps": 7}},
    }
    found = conflicts(user_json, run, plan)
    expected = (
        "gradient_accumulation_steps: the DeepSpeed file says 2, the run 1 (nothing: the loss carries all scaling)",
        "gradient_clipping: the DeepSpeed file says 0.3, the run 1.0 (trainer.max_grad_norm)",
        "bf16.enabled: the DeepSpeed file has the text 'true' where a value is meant: write true or \"auto\".",
        "fp16.enabled: the DeepSpeed file says True, the run False (engine.precision)",
        "zero_optimization.stage: the DeepSpeed file says 3, the run 1 (engine.zero_stage)",
        "zero_optimization.offload_param.device: the DeepSpeed file says 'cpu', the run 'none' (engine.offload)",
        "optimizer.params.lr: the DeepSpeed file says 0.001, the run 5e-05 (train.learning_rate)",
        "optimizer.params.betas: the DeepSpeed file says [0.9, 0.95], the run [0.9, 0.999]",
        "train_batch_size: the DeepSpeed file says 64, the run 32 (batch.global_size)",
        "train_micro_batch_size_per_gpu: the DeepSpeed file has the text '4' where a value is meant: write 4",
        "scheduler.params.warmup_num_steps: the DeepSpeed file says 7, the run 5 (trainer.warmup_steps)",
    )
    assert len(found) == len(expected)
    for message, start in zip(found, expected, strict=True):
        assert message.startswith(start)
    with pytest.raises(ConfigError) as caught:
        merged_config(user_json, run, plan)
    assert list(caught.value.messages) == found


def test_a_section_that_is_no_object() -> None:
    run, plan = planned()
    assert conflicts({"bf16": True, "optimizer": "auto"}, run, plan) == [
        "bf16: the DeepSpeed file has True where an object is meant: write {...}."
    ]


def test_a_number_is_no_switch_and_a_switch_no_number() -> None:
    run, plan = planned(engine={"precision": "bf16", "zero_stage": 1})
    found = conflicts({"bf16": {"enabled": 1}, "zero_optimization": {"stage": True}}, run, plan)
    assert [message.partition(":")[0] for message in found] == ["bf16.enabled", "zero_optimization.stage"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: path.write_text('{\n"a": }'), r"is not JSON \(Expecting value, line 2, column 6\)"),
        (lambda path: path.write_text("[1]"), "holds a list, not an object"),
        (lambda path: path.write_bytes(b"\xff"), "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "mine.json"
    make(path)
    with pytest.raises(ConfigError, match=said):
        read_user_json(path)


def test_a_run_reads_the_file_it_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"bf16": {"enabled": true}}')
    run, _ = planned(engine={"deepspeed": str(path)}, json_file={})
    assert user_json_of(run) == {"bf16": {"enabled": True}}
    assert user_json_of(planned()[0]) is None
