"""Tests the memory benchmark apart from its measurements: cases, file of results, exit status."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftsys.bench import memory
from ftsys.bench.memory_parts.cases import ENGINES, MODELS, Case, cases

ALL = list(cases())


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in ALL}) == len(ALL)


def test_all_that_was_promised_is_there() -> None:
    """Expect all models without ZeRO, two of them with every engine, each with and without recomputation."""
    fake = {(c.model, c.setting.precision, c.setting.checkpointing) for c in ALL if c.how == "fake"}
    assert fake == {(m, p, again) for m in MODELS for p in ("fp32", "bf16") for again in (False, True)}
    ranks = {
        (c.model, c.setting.zero_stage, c.setting.offload, c.setting.checkpointing)
        for c in ALL
        if c.how == "ranks" and c.setting.backend == "deepspeed"
    }
    for model in ("MiniLM-L6", "BERT-base"):
        assert {(model, *engine, again) for engine in ENGINES for again in (False, True)} <= ranks


def test_what_needs_a_gpu_is_not_measured() -> None:
    assert all((case.setting.device == "cuda") == (case.how == "none") for case in ALL)


def answers(monkeypatch: pytest.MonkeyPatch, factor: float) -> list[str]:
    """Replace each measurement by the prediction times `factor`; returns the list of measured names."""
    made: list[str] = []

    def measured(case: Case) -> dict[str, int]:
        made.append(case.name)
        return {"weights": 1, "total": int(case.predicted_bytes * factor)}

    monkeypatch.setattr(Case, "measured", measured)
    return made


def test_nothing_is_measured_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made, kept = answers(monkeypatch, 1.05), tmp_path / "kept.jsonl"
    first = memory.bench_memory("MiniLM.*ZeRO 3", kept)
    assert len(made) == len(first["ratios"]) > 5
    again = memory.bench_memory("MiniLM.*ZeRO 3", kept)
    assert len(made) == len(first["ratios"])
    assert again == first
    assert memory.worst(first) == pytest.approx(1 - 1 / 1.05, rel=1e-3)
    assert {row["how"] for row in first["settings"]["predicted, not verified"]} == {"none"}


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (1.09, 0), (1.2, 1), (0.8, 1)])
def test_the_verdict(
    factor: float, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, factor)
    assert memory.main(["--only", "MiniLM.*DDP", "--out", str(tmp_path)]) == status
    text = capsys.readouterr().out
    assert ("beyond the tolerance" in text) == bool(status)
    (record,) = tmp_path.glob("memory-*.json")
    found: dict[str, Any] = json.loads(record.read_text())
    assert list(found["ratios"]) == list(found["measurements"]) == [row["name"] for row in found["settings"]["rows"]]
