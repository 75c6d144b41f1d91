"""Tests that a run ends with its best model, and that it ends early, whatever interrupts it.

The learning rate is so high that the loss rises again after some steps.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ftsys.cli import main
from tests.field.conftest import write_own_run

LABELS = [0, 1, 1, 0, 1, 0, 0, 1] * 3
EVERY_STEP = ("--train.eval_every", "1", "--train.save_every", "1", "--train.learning_rate", "0.01")


def train(
    folder: Path, model: Path, splits: tuple[str, ...], *words: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train on rows of one's own; returns results.json, and the evaluations of the first split."""
    labels = {split: LABELS[place:] for place, split in enumerate(("train", *splits))}
    named: dict[str, Sequence[object]] = {
        split: ["no" if label else "yes" for label in values] for split, values in labels.items()
    }
    run = write_own_run(folder, model, named)
    assert main(["train", str(run), *EVERY_STEP, *words]) == 0
    lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    results = json.loads((folder / "run/results.json").read_text())
    return results, [line for line in lines if line.get("split") == splits[0]]


@pytest.mark.parametrize("save_every", ["1", "never"])
def test_the_run_ends_with_its_best_weights(
    save_every: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--train.keep_best", "loss", "--train.save_every", save_every)
    results, evaluations = train(tmp_path, tiny_model, ("validation",), *words)
    best = min(evaluations, key=lambda line: line["loss"])
    assert best["step"] < results["steps"] == 12
    assert results["best"] == {"metric": "loss", "value": best["loss"], "step": best["step"]}
    assert results["metrics"]["validation"]["loss"] == pytest.approx(best["loss"], rel=1e-6)
    said = capsys.readouterr().out
    assert f"those of step {best['step']}, with the best loss" in said
    assert any(line.split()[:2] == [f"{best['epoch']:.2f}*", str(best["step"])] for line in said.splitlines())
    assert main(["evaluate", str(tmp_path / "run.toml"), *EVERY_STEP, *words]) == 0
    assert f"{best['loss']:.4f}" in capsys.readouterr().out


def test_a_run_ends_once_its_metric_has_stopped_improving(tiny_model: Path, tmp_path: Path) -> None:
    words = ("--train.early_stopping", '{metric = "loss", patience = 2}', "--train.keep_best", "loss")
    results, evaluations = train(tmp_path, tiny_model, ("validation_a", "validation_b"), *words)
    losses = [line["loss"] for line in evaluations]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 == results["steps"] < 12
    assert results["best"]["step"] == best + 1
