"""Tests the list of candidates, the choice, and a step's traffic and time against results computed by hand."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftsys.config import build_run
from launcher.planner.candidates import (
    HEADROOM,
    RESERVED,
    Candidate,
    Constraints,
    Hardware,
    Work,
    all_candidates,
    choose,
)
from launcher.planner.cost.communication import (
    all_gather,
    all_reduce,
    reduce_scatter,
    sent_per_rank,
)
from launcher.planner.cost.memory import Setting
from launcher.planner.cost.step_time import LINK_SHARE, NETWORK, UTILISATION, Links, operations, step_time
from launcher.planner.gpus import GIB, GPUS
from launcher.planner.model_shape import model_shape
from launcher.planner.plan import World, make_plan

BERT = model_shape({"model_type": "bert"}, 2)
LARGE = model_shape(
    {
        "model_type": "bert",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
    2,
)
N = BERT.parameters
FREE = Constraints((0, 1, 2, 3), ("bf16",), "none", (False, True), (), "ddp")
WORK = Work(LARGE, 512, 32 * 512, 16_384)


def place(gib: float | None, ranks: int = 4, gpu: str = "h100-80g") -> Hardware:
    memory = None if gib is None else int(gib * GIB)
    return Hardware(ranks, "cuda", memory, Links(GPUS[gpu], 1) if gpu else None)


def chosen(work: Work, where: Hardware, constraints: Constraints = FREE) -> Candidate:
    found = choose(all_candidates(work, where, constraints, constraints.precisions), constraints)
    assert found is not None
    return found


def test_what_fits_as_it_is_is_taken_as_it_is() -> None:
    found = chosen(WORK, place(79.1))
    assert (found.plain, found.micro_tokens, found.fits) == (True, 16_384, "yes")
    unknown = chosen(WORK, place(None, gpu=""))
    assert (unknown.plain, unknown.micro_tokens, unknown.fits, unknown.seconds) == (True, 16_384, "unknown", None)


def test_the_fastest_of_those_that_fit_is_taken_where_the_plain_one_does_not() -> None:
    where = place(14)
    found = chosen(WORK, where)
    everything = all_candidates(WORK, where, FREE, ("bf16",))
    fitting = [candidate for candidate in everything if candidate.allowed and candidate.fits == "yes"]
    assert found in fitting
    assert found.seconds == min(candidate.seconds or 0.0 for candidate in fitting)
    assert not any(candidate.plain and candidate.micro_tokens == 16_384 for candidate in fitting)


def test_without_times_the_least_effort_is_taken() -> None:
    found = chosen(WORK, place(14, gpu=""))
    assert (found.setting.zero_stage, found.setting.checkpointing) == (0, False)
    assert found.micro_tokens < 16_384
    tight = chosen(WORK, place(8, gpu=""))
    assert tight.effort > found.effort


def test_a_second_choice_of_precision_only_where_the_first_fits_nowhere() -> None:
    constraints = replace(FREE, precisions=("fp32", "fp16"), stages=(0,), checkpointing=(False,), budgets=(16_384,))
    single, half = (
        min(c.memory.total for c in all_candidates(WORK, place(None), constraints, (precision,)) if c.allowed)
        for precision in constraints.precisions
    )
    assert half < single
    assert chosen(WORK, place(1_000), constraints).setting.precision == "fp32"
    between = (half + single) / 2 * HEADROOM + RESERVED
    assert chosen(WORK, place(between / GIB), constraints).setting.precision == "fp16"


def test_nothing_fits() -> None:
    assert choose(all_candidates(WORK, place(1), FREE, ("bf16",)), FREE) is None


@settings(deadline=None, max_examples=40)
@given(gib=st.floats(2, 90), ranks=st.sampled_from([1, 2, 8, 64]))
def test_the_choice_is_allowed_and_fits(gib: float, ranks: int) -> None:
    where = place(gib, ranks)
    found = choose(all_candidates(WORK, where, FREE, ("bf16", "fp32")), FREE)
    if found is not None:
        assert found.allowed
        assert found.memory.total + RESERVED <= gib * GIB
        more = choose(all_candidates(WORK, place(2 * gib, ranks), FREE, ("bf16", "fp32")), FREE)
        assert more is not None
        assert more.seconds is not None
        assert found.seconds is not None
        assert more.fits == "tight" or found.fits == "tight" or more.plain or more.seconds <= found.seconds * 1.001


def test_micro_batches_are_whole_examples() -> None:
    work = Work(BERT, 128, 10 * 128, 16_384)
    assert (work.micro_batch(16_384).tokens, work.micro_batches(16_384)) == (1_280, 1)
    assert (work.micro_batch(500).tokens, work.micro_batches(500)) == (384, 4)
    assert (work.micro_batch(1).tokens, work.micro_batches(1)) == (128, 10)
    budgets = {c.batch.tokens for c in all_candidates(work, place(None), FREE, ("bf16",))}
    assert budgets == {1_280, 640, 256, 128}


def bf16(stage: int, ranks: int = 4, **more: Any) -> Setting:
    backend: Any = "deepspeed" if stage else "ddp"
    return Setting(backend, stage, "bf16", "none", False, ranks, "cuda", **more)


def test_rings_send_what_their_formulas_say() -> None:
    assert (all_gather(800, 4), reduce_scatter(800, 4), all_reduce(800, 4)) == (600, 600, 1_200)
    assert all_reduce(800, 1) == 0


@pytest.mark.parametrize(
    ("stage", "micro_batches", "times_the_weights"),
    [(0, 1, 2), (0, 5, 2), (1, 1, 3), (1, 5, 3), (2, 1, 3), (2, 5, 11), (3, 1, 2), (3, 5, 10)],
)
def test_what_a_step_sends(stage: int, micro_batches: int, times_the_weights: int) -> None:
    sent = sent_per_rank(BERT, bf16(stage), micro_batches)
    assert sent == pytest.approx(times_the_weights * 2 * N * 3 / 4, abs=20)


def test_float32_sends_twice_as_much_and_gloo_scatters_by_summing_everything() -> None:
    single = replace(bf16(0), precision="fp32")
    assert sent_per_rank(BERT, single, 1) == pytest.approx(2 * sent_per_rank(BERT, bf16(0), 1), abs=2)
    assert sent_per_rank(BERT, replace(bf16(3), device="cpu"), 1) == pytest.approx(3 * 2 * N * 3 / 4, abs=20)


def test_a_model_too_large_to_stay_gathered_is_gathered_twice() -> None:
    llama = model_shape({"model_type": "llama"}, 2)
    assert sent_per_rank(llama, bf16(3), 1) == pytest.approx(3 * 2 * llama.parameters * 3 / 4, rel=1e-6)


def test_the_operations_of_a_step() -> None:
    batch = Work(BERT, 128, 1_024, 16_384).micro_batch(16_384)
    behind_attention = 768 * 768 + 2 * 768 * 3072  # in the last layer for 8 first tokens alone
    forward = 2 * BERT.matrix_parameters * 1_024 + 4 * 12 * 1_024 * 128 * 768 - 2 * behind_attention * (1_024 - 8)
    assert operations(BERT, batch, False) == 3 * forward
    assert operations(BERT, batch, True) == 4 * forward


def test_a_large_step_takes_its_operations_time_and_its_traffics() -> None:
    gpu, batch = GPUS["h100-80g"], WORK.micro_batch(16_384)
    alone = step_time(LARGE, batch, 1, bf16(0, ranks=1), Links(gpu, 1)).seconds()
    assert alone == pytest.approx(operations(LARGE, batch, False) / (gpu.rate_16 * UTILISATION), rel=0.05)
    here = step_time(LARGE, batch, 1, bf16(0, ranks=8), Links(gpu, 1)).seconds()
    apart = step_time(LARGE, batch, 1, bf16(0, ranks=8), Links(gpu, 2)).seconds()
    sent = sent_per_rank(LARGE, bf16(0, ranks=8), 1)
    assert here - alone == pytest.approx(sent / (gpu.link * LINK_SHARE))
    assert apart - alone == pytest.approx(sent / (NETWORK * LINK_SHARE))


def test_every_rank_and_the_login_node_plan_the_same() -> None:
    run = build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, "data": {"max_length": 512}})
    world = World(ranks=2, local_ranks=2, device="cuda", bf16_supported=True, gpu="t4-16g", device_memory=6 * GIB)
    plans = [make_plan(run, world, 3668, model=shape) for shape in (LARGE, replace(LARGE))]
    assert plans[0] == plans[1]
    assert plans[0].predicted is not None
    assert plans[0].predicted["bytes"]["total"] + RESERVED <= 6 * GIB
    assert plans[0].reasons["fit"].startswith(f"ZeRO {plans[0].zero_stage}: ")
