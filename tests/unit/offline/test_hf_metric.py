"""The `evaluate.Metric` of each GLUE task: the same values as ours, without network, cache folder or float32."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ftsys.errors import ConfigError
from ftsys.metrics import compute
from ftsys.tasks import GLUE

evaluate_metric = pytest.importorskip("ftsys.offline.hf_metric", exc_type=ModuleNotFoundError)
evaluate = pytest.importorskip("evaluate")


def _rows(name: str, rows: int = 101) -> tuple[np.ndarray, np.ndarray]:
    labels: np.ndarray
    generator, task = np.random.default_rng(3), GLUE[name]
    if task.regression:
        labels = generator.uniform(0, 5, rows)
        return labels + generator.normal(0, 1, rows), labels
    labels = generator.integers(0, len(task.labels), rows)
    return np.where(generator.random(rows) < 0.7, labels, generator.integers(0, len(task.labels), rows)), labels


@pytest.mark.parametrize("name", GLUE)
def test_same_values_as_ours(name: str) -> None:
    predictions, labels = _rows(name)
    metric = evaluate_metric.load_glue_metric(name)
    assert isinstance(metric, evaluate.Metric)
    expected = compute(GLUE[name].metrics, predictions, labels)
    assert metric.compute(predictions=predictions, references=labels) == expected
    assert metric.compute(predictions=list(predictions), references=list(labels)) == expected, "used twice, from lists"


@pytest.mark.parametrize("name", ["mrpc", "stsb"])
def test_added_in_batches(name: str) -> None:
    predictions, labels = _rows(name)
    metric = evaluate_metric.load_glue_metric(name)
    for start in range(0, len(labels), 40):
        metric.add_batch(predictions=predictions[start : start + 40], references=labels[start : start + 40])
    assert metric.compute() == compute(GLUE[name].metrics, predictions, labels)


def test_stsb_keeps_float64() -> None:
    labels = np.array([1.0, 2.0, 3.0])
    predictions = 1.0 + np.array([1e-10, 3e-10, 2e-10])  # one value in float32
    found = evaluate_metric.load_glue_metric("stsb").compute(predictions=predictions, references=labels)
    assert found["spearmanr"] == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["mnli_matched", "mnli_mismatched", "hans"])
def test_the_hub_scripts_other_names(name: str) -> None:
    found = evaluate_metric.load_glue_metric(name).compute(predictions=[0, 1, 1], references=[0, 1, 0])
    assert found == {"accuracy": pytest.approx(2 / 3)}


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(ConfigError, match="'mrcp' is no GLUE task"):
        evaluate_metric.load_glue_metric("mrcp")


def test_nothing_is_read_or_written_and_nobody_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    for name in ("socket.socket.connect", "socket.create_connection", "socket.getaddrinfo"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "metrics"))
    monkeypatch.chdir(tmp_path)
    metric = evaluate_metric.load_glue_metric("mrpc")
    metric.add_batch(predictions=[0, 1], references=[0, 1])
    metric.add(prediction=1, reference=0)
    assert metric.compute() == {"accuracy": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3)}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_offline_with_an_empty_home(tmp_path: Path) -> None:
    """In a process of its own, as libraries read these variables when they are imported: 10 seconds."""
    code = (
        "import socket\n"
        "def refuse(*_): raise SystemExit('a connection was tried')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from ftsys.offline.hf_metric import load_glue_metric\n"
        "metric = load_glue_metric('mrpc')\n"
        "metric.add_batch(predictions=[0, 1], references=[0, 1])\n"
        "print(metric.compute(predictions=[1, 1], references=[1, 0]))\n"
    )
    home = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path), "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'accuracy': 0.75" in done.stdout
    assert not list(tmp_path.rglob("*.arrow")) + list(tmp_path.rglob("*.lock"))
