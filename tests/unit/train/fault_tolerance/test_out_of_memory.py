"""Tests the explanation of an out-of-memory error and the smaller micro-batch that it suggests."""

import dataclasses
from typing import Any

import pytest
import torch

from ftsys.config import build_run
from ftsys.errors import FtsysError
from ftsys.train.fault_tolerance.out_of_memory import explanation, memory_explained, smaller_micro_batch
from launcher.planner.plan import Plan, World, make_plan

GIB = 2**30


def planned(micro_tokens: int, total: int) -> Plan:
    plan = make_plan(build_run({"output_dir": "run", "task": {"name": "mrpc"}}), World())
    predicted: dict[str, Any] = {"bytes": {"total": total}}
    return dataclasses.replace(plan, micro_tokens=micro_tokens, predicted=predicted)


def halves(tokens: int) -> Plan:
    """Predict 1 GiB for the weights and 1 GiB per 1,000 tokens."""
    return planned(tokens, GIB + tokens * GIB // 1000)


def test_the_largest_half_that_fits_is_named() -> None:
    plan = halves(16_000)
    assert smaller_micro_batch(plan, halves, 128, used=17 * GIB, has=17 * GIB) == 8_000
    assert smaller_micro_batch(plan, halves, 128, used=17 * GIB, has=6 * GIB) == 4_000
    # twice as much was used as was predicted: so much more will be by any other plan
    assert smaller_micro_batch(plan, halves, 128, used=34 * GIB, has=17 * GIB) == 4_000


def test_none_below_the_longest_example_or_without_a_prediction() -> None:
    assert smaller_micro_batch(halves(16_000), halves, 5_000, used=17 * GIB, has=6 * GIB) is None
    unknown = dataclasses.replace(halves(16_000), predicted=None)
    assert smaller_micro_batch(unknown, halves, 128, used=17 * GIB, has=6 * GIB) is None


def test_the_message_holds_all_of_it() -> None:
    said = explanation(halves(16_000), 20 * GIB, 24 * GIB, 8_000)
    for part in ("17.0 GiB was planned", "16,000 tokens", "20.0 GiB of 24.0", "--batch.micro_tokens 8000"):
        assert part in said
    assert "--engine.activation_checkpointing true" in explanation(halves(128), 20 * GIB, 24 * GIB, None)
    assert "was planned" in explanation(dataclasses.replace(halves(128), predicted=None), None, None, None)


def test_the_devices_error_becomes_ours_and_others_pass() -> None:
    with pytest.raises(FtsysError, match="out of memory"), memory_explained(halves(16_000), halves, 128):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(ZeroDivisionError), memory_explained(halves(16_000), halves, 128):
        raise ZeroDivisionError
