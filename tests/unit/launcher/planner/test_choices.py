"""Tests single choices of a plan at their limits: what a DeepSpeed file settles, steps, refusals and remarks."""

from typing import Any

import pytest

from ftsys.config import RunConfig, build_run
from launcher.planner.choices import (
    backend_of,
    checkpointing_of,
    impossible,
    micro_tokens_of,
    notes_on,
    order_of,
    precision_of,
    settled_by_json,
    step_counts,
    usual_micro_tokens,
    warmup_steps,
    zero_stage,
)
from launcher.planner.world import ProductRates, World

CPU, GPU = World(), World(device="cuda", bf16_supported=True)


def run_of(**sections: Any) -> RunConfig:
    return build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, **sections})


@pytest.mark.parametrize(
    ("config", "settled"),
    [
        ({}, {}),
        ({"zero_optimization": {"stage": 0}}, {"zero_stage": 0}),
        ({"zero_optimization": {"stage": 3}}, {"zero_stage": 3}),
        ({"zero_optimization": {"stage": 4}}, {}),
        ({"zero_optimization": {"stage": -1}}, {}),
        ({"zero_optimization": {"stage": True}}, {}),
        ({"zero_optimization": 2}, {}),
        ({"bf16": {"enabled": True}}, {"precision": "bf16"}),
        ({"fp16": {"enabled": True}, "bf16": {"enabled": False}}, {"precision": "fp16"}),
        ({"fp16": {"enabled": True}, "bf16": {"enabled": True}}, {}),
        ({"bf16": {"enabled": False}}, {"precision": "fp32"}),
        ({"bf16": {"enabled": False}, "fp16": {"enabled": False}}, {"precision": "fp32"}),
        ({"bf16": {"enabled": False}, "fp16": {"enabled": "auto"}}, {}),
        ({"fp16": {"enabled": False}}, {}),
        ({"bf16": {"enabled": "auto"}, "fp16": {"enabled": False}}, {}),
    ],
)
def test_what_a_deepspeed_file_settles(config: dict[str, Any], settled: dict[str, Any]) -> None:
    assert settled_by_json(config) == settled


@pytest.mark.parametrize(
    ("keys", "settled", "stage", "why"),
    [
        ({"zero_stage": 0}, {"zero_stage": 2}, 0, "engine.zero_stage = 0"),
        ({"deepspeed": "d.json"}, {"zero_stage": 2}, 2, "the DeepSpeed file 'd.json' says 2"),
        ({"offload": "parameters"}, {}, 3, "engine.offload = 'parameters' needs stage 3"),
        ({}, {}, 0, "fit one device"),
    ],
)
def test_a_stage_with_its_reason(keys: dict[str, Any], settled: dict[str, Any], stage: int, why: str) -> None:
    decision = zero_stage(run_of(engine=keys), settled)
    assert decision.value == stage
    assert why in decision.why


@pytest.mark.parametrize(
    ("keys", "world", "stage", "backend", "why"),
    [
        ({"backend": "ddp"}, CPU, 2, "ddp", "engine.backend = 'ddp'"),
        ({}, CPU, 1, "deepspeed", "ZeRO 1 is DeepSpeed's"),
        ({"deepspeed": "d.json"}, CPU, 0, "deepspeed", "engine.deepspeed names a DeepSpeed file"),
        ({}, World(launcher="deepspeed"), 0, "deepspeed", "started by the deepspeed launcher"),
        ({}, World(ranks=2, launcher="torchrun"), 0, "ddp", "2 ranks without ZeRO"),
        ({}, World(launcher="torchrun"), 0, "none", "a single process has no gradients to average"),
    ],
)
def test_a_backend_with_its_reason(keys: dict[str, Any], world: World, stage: int, backend: str, why: str) -> None:
    decision = backend_of(run_of(engine=keys), world, stage)
    assert (decision.value, decision.why) == (backend, why)


@pytest.mark.parametrize(
    ("keys", "world", "settled", "precision", "why"),
    [
        ({"precision": "fp16"}, GPU, {"precision": "bf16"}, "fp16", "engine.precision = 'fp16'"),
        ({"deepspeed": "d.json"}, GPU, {"precision": "fp16"}, "fp16", "the DeepSpeed file 'd.json' says fp16"),
        ({}, GPU, {"precision": "fp16"}, "bf16", "the GPU computes bf16"),
        ({"deepspeed": "d.json"}, GPU, {}, "bf16", "the GPU computes bf16"),
        ({}, CPU, {}, "fp32", "the CPU computes bf16 slowly or not at all"),
        ({}, World(bf16_supported=True), {}, "bf16", "the CPU computes bf16"),
        (
            {},
            World(bf16_supported=True, rates=ProductRates(1e9, 3e9)),
            {},
            "bf16",
            "this CPU multiplies matrices at 3 GFLOP/s in bf16 and 1 in fp32, as measured",
        ),
    ],
)
def test_a_precision_with_its_reason(
    keys: dict[str, Any], world: World, settled: dict[str, Any], precision: str, why: str
) -> None:
    decision = precision_of(run_of(engine=keys), world, settled)
    assert (decision.value, decision.why) == (precision, why)


@pytest.mark.parametrize(("asked", "value"), [("auto", False), (False, False), (True, True)])
def test_recomputation_is_what_is_asked_for(asked: Any, value: bool) -> None:
    decision = checkpointing_of(run_of(engine={"activation_checkpointing": asked}))
    assert decision.value is value
    words = "activations are kept" if asked == "auto" else f"activation_checkpointing = {str(asked).lower()}"
    assert words in decision.why


def test_a_micro_batch_holds_the_longest_example() -> None:
    assert [usual_micro_tokens(run_of(), world) for world in (CPU, GPU)] == [4_096, 16_384]
    long = run_of(data={"max_length": 20_000})
    assert [usual_micro_tokens(long, world) for world in (CPU, GPU)] == [20_000, 20_000]
    assert micro_tokens_of(run_of(), CPU).why == "4096 on a CPU, at least data.max_length = 128"
    asked = micro_tokens_of(run_of(batch={"micro_tokens": 300}), CPU)
    assert (asked.value, asked.why) == (300, "batch.micro_tokens = 300")


def test_an_order_with_its_reason() -> None:
    assert order_of(run_of(), packed=True).value == "random"
    assert order_of(run_of(), packed=False).why == "padded batches of similar lengths hold less padding"
    asked = order_of(run_of(batch={"order": "length_grouped"}), packed=True)
    assert (asked.value, asked.why) == ("length_grouped", "batch.order = 'length_grouped'")


@pytest.mark.parametrize(
    ("train", "rows", "per_epoch", "counts"),
    [
        ({"epochs": 3}, 64, None, (2, 6)),
        ({"epochs": 3}, 65, None, (3, 9)),
        ({"epochs": 0.5}, 65, None, (3, 2)),
        ({"epochs": 3}, None, None, (None, None)),
        ({"epochs": 3}, None, 7, (7, 21)),
        ({"epochs": 2}, 65, 7, (7, 14)),
        ({"max_steps": 5}, 65, None, (3, 5)),
        ({"max_steps": 5}, None, None, (None, 5)),
    ],
)
def test_steps(train: dict[str, Any], rows: int | None, per_epoch: int | None, counts: tuple[Any, Any]) -> None:
    assert step_counts(run_of(train=train), rows, per_epoch) == counts


@pytest.mark.parametrize(
    ("asked", "total", "steps"),
    [(0, 100, 0), (0, None, 0), (1, 100, 1), (1, None, 1), (0.1, 101, 11), (0.1, None, None), (30, None, 30)],
)
def test_warm_up(asked: float, total: int | None, steps: int | None) -> None:
    assert warmup_steps(asked, total) == steps


SIZE_4, TOKENS = {"batch": {"global_size": 4}}, {"batch": {"global_tokens": 512}}


@pytest.mark.parametrize(
    ("sections", "world", "backend", "precision", "rows", "words"),
    [
        ({}, CPU, "none", "fp32", 100, None),
        ({}, CPU, "none", "fp16", 100, "engine.precision='fp16' cannot be computed on a CPU"),
        ({}, GPU, "none", "fp16", 100, None),
        ({}, World(ranks=2), "none", "fp32", 100, "is one process, but 2 ranks were started"),
        ({}, World(ranks=2), "ddp", "fp32", 100, None),
        (SIZE_4, World(ranks=4), "ddp", "fp32", 100, None),
        (SIZE_4, World(ranks=5), "ddp", "fp32", 100, "the smallest that works is 5, or start at most 4"),
        (TOKENS, World(ranks=4), "ddp", "fp32", 100, None),
        (TOKENS, World(ranks=5), "ddp", "fp32", 100, "surely works with data.max_length=128 is 640"),
        ({}, World(ranks=3), "ddp", "fp32", 3, None),
        ({}, World(ranks=3), "ddp", "fp32", 2, "has 2 examples for 3 ranks: start at most 2"),
        ({}, World(ranks=3), "ddp", "fp32", None, None),
        ({}, World(ranks=1), "none", "fp32", 0, "has 0 examples for 1 ranks: start at most 1"),
    ],
)
def test_what_cannot_work(
    sections: dict[str, Any], world: World, backend: str, precision: str, rows: int | None, words: str | None
) -> None:
    found = impossible(run_of(**sections), world, backend, precision, rows)
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


@pytest.mark.parametrize(
    ("sections", "world", "precision", "notes"),
    [
        (SIZE_4, World(ranks=4), "fp32", []),
        (SIZE_4, World(ranks=3), "fp32", ["4 examples over 3 ranks: 1 rank(s) have 2, the others 1"]),
        (TOKENS, World(ranks=3), "fp32", []),
        ({}, CPU, "bf16", ["the CPU has no bf16 arithmetic of its own: expect bf16 to be slower than fp32"]),
        ({}, World(bf16_supported=True), "bf16", []),
        ({}, CPU, "fp32", []),
        ({"engine": {"offload": "optimizer"}}, GPU, "fp32", []),
        (
            {"engine": {"offload": "optimizer"}},
            CPU,
            "fp32",
            ["engine.offload = 'optimizer' gains nothing where the device is the CPU itself"],
        ),
    ],
)
def test_what_may_surprise(sections: dict[str, Any], world: World, precision: str, notes: list[str]) -> None:
    assert notes_on(run_of(**sections), world, precision) == notes
