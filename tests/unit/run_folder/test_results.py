"""Tests results.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftsys.run_folder.results import RESULT_KEYS, write_results

RESULTS: dict[str, Any] = {
    "task": "mrpc",
    "model": "/models/all-MiniLM-L6-v2",
    "metrics": {"validation": {"accuracy": 0.8088, "f1": float("nan"), "loss": 0.5, "examples": 408}},
    "world_size": 2,
    "zero_stage": 0,
    "backend": "deepspeed",
    "precision": "bf16",
    "kernels": "reference",
    "global_batch": 32,
    "steps": 345,
    "epochs": 3.0,
    "seed": 42,
    "throughput": {
        "real_tokens_per_s": 1.0,
        "samples_per_s": 2.0,
        "padding_fraction": 0.0,
        "useful_tflops": 0.1,
        "mfu": None,
    },
    "timing": {"startup_s": 1.0, "prepare_s": 2.0, "train_s": 3.0, "eval_s": 4.0, "total_s": 10.0},
    "versions": {"torch": "2.13.0"},
    "commit": None,
}


def test_results_are_strict_json_in_the_contracts_order(tmp_path: Path) -> None:
    write_results(tmp_path / "run", {"extra": 1, **dict(reversed(RESULTS.items()))}, attempt=3)
    found = json.loads((tmp_path / "run" / "results.json").read_text(), parse_constant=pytest.fail)
    assert list(found) == [*RESULT_KEYS, "extra", "attempt"]
    assert found["attempt"] == 3
    assert found["metrics"]["validation"] == {"accuracy": 0.8088, "f1": None, "loss": 0.5, "examples": 408}


def test_missing_results_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    broken = {key: value for key, value in RESULTS.items() if key not in ("seed", "timing")}
    broken["throughput"] = {"mfu": 0.1}
    with pytest.raises(ValueError, match=r"lack seed, timing, throughput\.real_tokens_per_s.*timing\.total_s"):
        write_results(tmp_path, broken, attempt=1)
    assert list(tmp_path.iterdir()) == []
