"""Tests what the page of records says of shares of the matrix-product rate and of the CPU."""

from typing import Any

import pytest

from tools.docs.records import _instructions, _peers


def record(settings: dict[str, Any], useful: float = 0.3) -> dict[str, Any]:
    """Return a record of two peers; ours computes `useful` TFLOP/s, the bf16 rate has a median of 0.4 TFLOP/s."""
    figure = {"spread": 0.1, "repeats": 7}
    measured = {
        "tiny: bf16 matrix product": figure | {"median": 4e11},
        "tiny, ours: useful": figure | {"median": useful},
        "tiny, best: useful": figure | {"median": 0.2},
        "tiny, ours: peak memory": figure | {"median": 1e9},
        "tiny, best: peak memory": figure | {"median": 2e9},
        "tiny: optimizer steps: ours / best": figure | {"median": 1.5},
    }
    return {"settings": settings, "measurements": measured, "ratios": {"tiny: optimizer steps: ours / best": 1.5}}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "that `ours` reaches: 75%. The rate is the median of 7 samples in bf16."),
        (
            {"tiny: matrix-product rate": {"FLOP/s": 5e11, "samples": 14}},
            "that `ours` reaches: 60%. The rate is the best of 14 samples.",
        ),
    ],
)
def test_a_share_comes_with_its_samples(settings: dict[str, Any], expected: str) -> None:
    assert expected in _peers(record(settings))


def test_no_share_above_the_rate_is_written() -> None:
    page = _peers(record({}, useful=0.8))
    assert "that `ours` reaches: not known." in page
    assert "200%" not in page


def test_the_cpus_instructions_are_named_where_the_record_has_them() -> None:
    assert _instructions({"cpu": {"instructions": ["avx2", "avx512f"]}}) == " The CPU has avx2, avx512f."
    assert _instructions({}) == ""
