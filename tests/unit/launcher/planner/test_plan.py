"""Tests every automatic choice of a plan, its batch arithmetic, and the settings that a world refuses."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftsys.config import RunConfig, build_run
from ftsys.errors import ConfigError
from launcher.planner.choices import compiled, warmup_steps
from launcher.planner.gpus import GIB
from launcher.planner.model_shape import model_shape
from launcher.planner.plan import Plan, World, make_plan

CPU = World(bf16_supported=True)
GPUS = World(ranks=8, local_ranks=8, device="cuda", bf16_supported=True)
ONE_GPU = World(device="cuda", bf16_supported=True)

LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
BERT_LARGE = model_shape({"model_type": "bert", **LARGE}, 2)


def run_of(**sections: Any) -> RunConfig:
    return build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, **sections})


def engine(**keys: Any) -> RunConfig:
    return run_of(engine=keys)


@pytest.mark.parametrize(
    ("keys", "world", "json_file", "backend"),
    [
        ({}, CPU, None, "none"),
        ({}, World(ranks=2, local_ranks=2), None, "ddp"),
        ({}, World(ranks=2, local_ranks=2, launcher="torchrun"), None, "ddp"),
        ({}, World(ranks=1, launcher="deepspeed"), None, "deepspeed"),
        ({"zero_stage": 1}, CPU, None, "deepspeed"),
        ({"zero_stage": 0}, GPUS, None, "ddp"),
        ({"offload": "optimizer"}, GPUS, None, "deepspeed"),
        ({"deepspeed": "mine.json"}, CPU, {}, "deepspeed"),
        ({"deepspeed": "mine.json"}, CPU, {"zero_optimization": {"stage": 2}}, "deepspeed"),
        ({"backend": "ddp"}, World(ranks=2, launcher="deepspeed"), None, "ddp"),
        ({"backend": "deepspeed"}, CPU, None, "deepspeed"),
    ],
)
def test_backend(keys: dict[str, Any], world: World, json_file: Any, backend: str) -> None:
    plan = make_plan(engine(**keys), world, deepspeed_json=json_file)
    assert plan.backend == backend
    assert plan.reasons["backend"]


@pytest.mark.parametrize(
    ("keys", "json_file", "stage"),
    [
        ({}, None, 0),
        ({"zero_stage": 3}, None, 3),
        ({"offload": "optimizer"}, None, 1),
        ({"offload": "parameters"}, None, 3),
        ({"offload": "nvme:/disk"}, None, 3),
        ({"offload": "optimizer", "zero_stage": 2}, None, 2),
        ({"deepspeed": "x"}, {"zero_optimization": {"stage": 2}}, 2),
        ({"deepspeed": "x"}, {"zero_optimization": {"stage": "auto"}}, 0),
        ({"deepspeed": "x"}, {"zero_optimization": {"stage": True}}, 0),
        ({"deepspeed": "x", "zero_stage": 1}, {"zero_optimization": {"stage": 2}}, 1),
    ],
)
def test_zero_stage(keys: dict[str, Any], json_file: Any, stage: int) -> None:
    assert make_plan(engine(**keys), GPUS, deepspeed_json=json_file).zero_stage == stage


@pytest.mark.parametrize(
    ("precision", "world", "json_file", "expected"),
    [
        ("auto", CPU, None, "bf16"),
        ("auto", World(), None, "fp32"),
        ("auto", GPUS, None, "bf16"),
        ("auto", World(device="cuda"), None, "fp32"),
        ("fp32", GPUS, None, "fp32"),
        ("fp16", World(device="cuda"), None, "fp16"),
        ("bf16", World(), None, "bf16"),
        ("auto", GPUS, {"fp16": {"enabled": True}}, "fp16"),
        ("auto", GPUS, {"bf16": {"enabled": False}}, "fp32"),
        ("auto", GPUS, {"fp16": {"enabled": False}}, "bf16"),
        ("auto", World(), {"bf16": {"enabled": "auto"}}, "fp32"),
    ],
)
def test_precision(precision: str, world: World, json_file: Any, expected: str) -> None:
    run = engine(precision=precision, deepspeed="mine.json" if json_file else "")
    assert make_plan(run, world, deepspeed_json=json_file).precision == expected


def test_bf16_on_a_device_without_it_is_noted() -> None:
    assert any("no bf16 arithmetic" in note for note in make_plan(engine(precision="bf16"), World()).notes)


def test_order_and_micro_tokens() -> None:
    assert make_plan(run_of(), CPU).order == "random"
    assert make_plan(run_of(), CPU, packed=False).order == "length_grouped"
    assert make_plan(run_of(batch={"order": "random"}), CPU, packed=False).order == "random"
    assert make_plan(run_of(), CPU).micro_tokens == 4_096
    assert make_plan(run_of(), GPUS).micro_tokens == 16_384
    assert make_plan(run_of(data={"max_length": 8192}), CPU).micro_tokens == 8_192
    assert make_plan(run_of(batch={"micro_tokens": 256}), CPU).micro_tokens == 256


@pytest.mark.parametrize(
    ("size", "ranks", "least", "with_more", "largest"),
    [(32, 1, 32, 0, 32), (32, 2, 16, 0, 16), (32, 3, 10, 2, 11), (8, 8, 1, 0, 1), (9, 8, 1, 1, 2)],
)
def test_each_ranks_share(size: int, ranks: int, least: int, with_more: int, largest: int) -> None:
    plan = make_plan(run_of(batch={"global_size": size}), World(ranks=ranks))
    assert (plan.rank_examples, plan.ranks_with_one_more, plan.largest_rank_examples) == (least, with_more, largest)
    assert bool(plan.notes) == bool(with_more)


@given(size=st.integers(1, 10_000), ranks=st.integers(1, 600))
def test_shares_add_up_or_are_refused(size: int, ranks: int) -> None:
    run, world = run_of(batch={"global_size": size}), World(ranks=ranks)
    if ranks > size:
        with pytest.raises(ConfigError, match=f"the smallest that works is {ranks}"):
            make_plan(run, world)
        return
    plan = make_plan(run, world)
    assert plan.rank_examples is not None
    assert plan.ranks_with_one_more is not None
    assert plan.rank_examples * ranks + plan.ranks_with_one_more == size


def test_one_rank_too_many() -> None:
    assert make_plan(run_of(), World(ranks=32)).rank_examples == 1
    with pytest.raises(ConfigError, match="the smallest that works is 33"):
        make_plan(run_of(), World(ranks=33))


def test_steps_of_mrpc() -> None:
    # 3,668 examples in steps of 32: 114 full ones and one of 20.
    plan = make_plan(run_of(trainer={"warmup_steps": 0.1}), CPU, 3668)
    assert (plan.steps_per_epoch, plan.total_steps, plan.warmup_steps) == (115, 345, 35)


def test_steps_of_a_part_of_an_epoch() -> None:
    assert make_plan(run_of(train={"epochs": 0.5}), CPU, 3668).total_steps == 58


def test_max_steps_need_no_rows() -> None:
    plan = make_plan(run_of(train={"max_steps": 7}, trainer={"warmup_steps": 3}), CPU)
    assert (plan.steps_per_epoch, plan.total_steps, plan.warmup_steps, plan.epochs) == (None, 7, 3, None)


def test_steps_without_rows_are_not_made_up() -> None:
    plan = make_plan(run_of(trainer={"warmup_steps": 0.1}), CPU)
    assert (plan.steps_per_epoch, plan.total_steps, plan.warmup_steps) == (None, None, None)


def test_steps_sized_in_tokens_are_counted_by_the_batch_plan() -> None:
    run = run_of(batch={"global_tokens": 16_384})
    assert make_plan(run, CPU, 3668).total_steps is None
    plan = make_plan(run, CPU, 3668, steps_per_epoch=12)
    assert (plan.steps_per_epoch, plan.total_steps, plan.global_size, plan.largest_rank_examples) == (
        12,
        36,
        None,
        None,
    )


@pytest.mark.parametrize(("asked", "total"), [(0, 345), (0.1, 345), (0.06, 33), (1, 10), (10, 345), (2.7, 99)])
def test_warmup_is_transformers_own(asked: float, total: int) -> None:
    from transformers import TrainingArguments

    arguments = TrainingArguments(output_dir="unused", warmup_steps=asked, use_cpu=True, report_to=[])
    assert warmup_steps(asked, total) == arguments.get_warmup_steps(total)


def test_everything_impossible_is_said_at_once() -> None:
    run = run_of(batch={"global_size": 2}, engine={"precision": "fp16", "backend": "none"})
    with pytest.raises(ConfigError) as caught:
        make_plan(run, World(ranks=4), train_rows=3)
    starts = (
        "engine.precision='fp16' cannot be computed on a CPU",
        "engine.backend='none' is one process, but 4 ranks were started",
        "batch.global_size=2 has fewer examples in a step than there are ranks (4): the smallest that works is 4, or "
        "start at most 2 rank(s).",
        "the training split has 3 examples for 4 ranks: start at most 3.",
    )
    assert len(caught.value.messages) == len(starts)
    for message, start in zip(caught.value.messages, starts, strict=True):
        assert message.startswith(start)


def test_a_token_budget_too_small_for_the_ranks() -> None:
    run = run_of(batch={"global_tokens": 256})
    assert make_plan(run, World(ranks=2)).global_tokens == 256
    with pytest.raises(ConfigError, match=r"the smallest that surely works with data.max_length=128 is 384"):
        make_plan(run, World(ranks=3))


@pytest.mark.parametrize("name", ["ranks", "nodes", "local_ranks"])
def test_a_world_of_nobody(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}=0"):
        World(**{**asdict(CPU), name: 0})


def test_each_choice_gives_its_reason() -> None:
    without_model = {
        "activation_checkpointing": "activations are kept unless a GPU's memory asks for less",
        "micro_tokens": "16384 on a GPU, at least data.max_length = 128",
        "zero_stage": "an encoder's weights, gradients and optimizer state fit one device, so nothing is split",
        "precision": "the GPU computes bf16 slowly or not at all",
        "backend": "4 ranks without ZeRO",
        "order": "packed batches hold no padding",
        "compile": "ftsys' own kernels fuse the same operations",
        "cuda_graphs": "it has 4 ranks, whose recorded passes no GPU has tried: engine.cuda_graphs = true does",
    }
    small_gpus = World(ranks=4, local_ranks=4, device="cuda", device_memory=4 * GIB)
    assert make_plan(run_of(), small_gpus).reasons == without_model
    needs = "2.5 GiB of 4.0 GiB; ZeRO 0 alone needs 6.4 GiB"
    assert make_plan(run_of(), small_gpus, model=BERT_LARGE).reasons == without_model | {
        "activation_checkpointing": "activations fit",
        "zero_stage": needs,
        "precision": "the GPU computes bf16 slowly or not at all; fp16 is what fits",
        "fit": f"ZeRO 1: {needs}",
        "backend": "ZeRO 1 is DeepSpeed's",
        "cuda_graphs": "DeepSpeed moves weights and gradients between passes",
    }


def test_a_plan_is_json_and_reads_back() -> None:
    plan = make_plan(run_of(), World(ranks=3), 3668)
    text = plan.to_json()
    assert Plan.from_json(text) == plan
    assert json.loads(text)["rank_examples"] == 10


def test_a_plan_of_another_format_is_refused() -> None:
    values = json.loads(make_plan(run_of(), CPU).to_json()) | {"format": 99}
    with pytest.raises(ConfigError, match="plan has format 99"):
        Plan.from_json(json.dumps(values))


def test_optimizer_and_clipping_come_from_the_trainer_section() -> None:
    plan = make_plan(run_of(trainer={"optim": "adamw_torch", "max_grad_norm": 0}), CPU)
    assert (plan.optimizer, plan.max_grad_norm) == ("adamw_torch", 0.0)
    default = make_plan(run_of(), CPU)
    assert (default.optimizer, default.max_grad_norm) == ("adamw_torch_fused", 1.0)


@pytest.mark.parametrize(
    ("asked", "compiles", "why"),
    [
        ("auto", False, "own kernels fuse the same operations"),
        (True, True, "engine.compile = true"),
        (False, False, "engine.compile = false"),
    ],
)
def test_only_what_is_asked_for_is_compiled(asked: Any, compiles: bool, why: str) -> None:
    decision = compiled(engine(compile=asked))
    assert decision.value is compiles
    assert why in decision.why


@pytest.mark.parametrize(
    ("sections", "world", "why"),
    [
        ({}, CPU, "the run is on cpu"),
        ({"engine": {"backend": "deepspeed"}}, ONE_GPU, "DeepSpeed moves weights"),
        ({"engine": {"precision": "fp16"}}, ONE_GPU, "fp16 scales each loss by another factor"),
        ({"engine": {"activation_checkpointing": True}}, ONE_GPU, "activations are computed again"),
        ({"batch": {"global_tokens": 4096}}, ONE_GPU, "batch.global_tokens makes batches of many sizes"),
    ],
)
def test_passes_that_cannot_be_recorded_are_refused(sections: dict[str, Any], world: World, why: str) -> None:
    asked = {**sections, "engine": {"cuda_graphs": True, **sections.get("engine", {})}}
    with pytest.raises(ConfigError, match=f"engine.cuda_graphs=True is not available here: {why}"):
        make_plan(run_of(**asked), world, 3668)


def test_passes_are_not_recorded_where_they_cannot_be_and_the_plan_says_why() -> None:
    untried = "it has 8 ranks, whose recorded passes no GPU has tried: engine.cuda_graphs = true does"
    for world, why in ((CPU, "the run is on cpu"), (GPUS, untried)):
        plan = make_plan(run_of(), world, 3668)
        assert (plan.cuda_graphs, plan.reasons["cuda_graphs"]) == (False, why)


def test_passes_are_recorded_where_they_can_be() -> None:
    assert make_plan(run_of(engine={"cuda_graphs": True}), ONE_GPU, 3668).cuda_graphs
    assert make_plan(run_of(), ONE_GPU, 3668).cuda_graphs
    assert make_plan(run_of(engine={"cuda_graphs": True, "backend": "ddp"}), GPUS, 3668).cuda_graphs
    assert not make_plan(run_of(engine={"cuda_graphs": False}), ONE_GPU, 3668).cuda_graphs
    with pytest.raises(ConfigError, match="the model is fed padded batches"):
        make_plan(run_of(engine={"cuda_graphs": True}), ONE_GPU, 3668, packed=False)
