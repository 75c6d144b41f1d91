"""Tests scores, divergence, the bootstrap and the formats on made-up results."""

import math

import numpy as np
import pytest

from ftsys.run_folder.predictions import LabelledPredictions
from ftsys.table.grid import Grid
from ftsys.table.results.bootstrap import Difference, paired_bootstrap
from ftsys.table.results.collect import spread
from ftsys.table.results.compare import sentence_of
from ftsys.table.results.resampled import resampled
from ftsys.table.results.scores import average_name, named_metrics, task_score, why_diverged
from ftsys.tasks import GLUE, Task

MOODS = Task("moods", ("text",), ("joy", "anger"), ("micro_f1", "average_precision"), multi_label=True)
ACCURACY = resampled("accuracy")


def test_a_task_with_two_metrics_or_two_splits_has_their_mean() -> None:
    mrpc = {
        "metrics": {"validation": {"accuracy": 0.8, "f1": 0.9, "loss": 7.0, "examples": 3}, "test": {"examples": 1}}
    }
    assert named_metrics(GLUE["mrpc"], mrpc) == {"accuracy": 0.8, "f1": 0.9}
    assert task_score(GLUE["mrpc"], {"accuracy": 0.8, "f1": 0.9}) == pytest.approx(0.85)
    mnli = {"metrics": {"validation_matched": {"accuracy": 0.7}, "validation_mismatched": {"accuracy": 0.6}}}
    names = named_metrics(GLUE["mnli"], mnli)
    assert names == {"accuracy": 0.7, "accuracy validation_mismatched": 0.6}
    assert task_score(GLUE["mnli"], names) == pytest.approx(0.65)
    assert task_score(GLUE["stsb"], {"pearson": 0.8, "spearmanr": None}) is None
    assert task_score(GLUE["stsb"], {"mse": 4.0, "pearson": 0.5}) == 0.5, "an error is not averaged"
    assert task_score(MOODS, {"micro_f1": 0.6, "average_precision": 0.8}) == 0.6


def test_names_of_averages() -> None:
    nine = "cola sst2 mrpc stsb qqp mnli qnli rte wnli".split()
    assert average_name(nine) == "GLUE average"
    assert average_name(nine[:-1]) == "GLUE average without WNLI"
    assert average_name(nine[:3]) == "mean of 3 GLUE tasks"


@pytest.mark.parametrize(
    ("task", "predictions", "labels", "reason"),
    [
        ("rte", [0, 0, 0, 0], [0, 1, 0, 0], "accuracy 0.7500 is not better than 0.7500"),
        ("rte", [1, 1, 0, 0], [0, 1, 0, 0], "accuracy 0.7500 is not better than 0.7500"),
        ("rte", [0, 1, 0, 0], [0, 1, 0, 0], ""),
        ("cola", [0, 0, 0, 0], [0, 1, 0, 0], "matthews_correlation 0.0000"),
        ("stsb", [1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "pearson is undefined"),
        ("stsb", [3.0, 2.0, 1.0], [1.0, 2.0, 3.0], "pearson -1.0000 is not better than 0.0000"),
        ("stsb", [1.0, 2.0, 4.0], [1.0, 2.0, 3.0], ""),
    ],
)
def test_divergence(task: str, predictions: list[float], labels: list[float], reason: str) -> None:
    kind = np.float64 if GLUE[task].regression else np.int64
    found = LabelledPredictions(np.arange(len(labels)), np.array(predictions, kind), np.array(labels, kind))
    told = why_diverged(GLUE[task], found)
    assert told.startswith(reason)
    assert bool(told) == bool(reason)


def test_a_correlation_of_one_answer_for_all_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("ftsys.metrics._warn_once", told.append)
    found = LabelledPredictions(np.arange(3), np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    assert why_diverged(GLUE["stsb"], found) == ""
    assert told == [], "the reader of a table has computed no such correlation"


@pytest.mark.parametrize(
    ("predictions", "reason"),
    [
        ([[0, 0], [0, 0], [0, 0], [0, 0]], "micro_f1 0.0000 is not better than 0.7500"),
        ([[1, 1], [1, 1], [1, 1], [1, 1]], "micro_f1 0.6667 is not better than 0.7500"),
        ([[1, 0], [1, 0], [0, 1], [0, 0]], ""),
    ],
)
def test_divergence_of_several_labels(predictions: list[list[int]], reason: str) -> None:
    """Of joy in 3 and anger in 1 of 4 rows, all joy gives 2 * 3 / (4 + 4), and both labels 2 * 4 / (8 + 4)."""
    labels_NC = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    found = LabelledPredictions(np.arange(4), np.array(predictions), labels_NC, np.array(predictions) * 0.5)
    told = why_diverged(Task("m", ("t",), ("joy", "anger"), ("micro_f1",), multi_label=True), found)
    assert told.startswith(reason)
    assert bool(told) == bool(reason)


def test_spread() -> None:
    found = spread({1: 1.0, 2: 3.0, 5: 2.0})
    assert (found.mean, found.deviation, found.best, found.best_seed, found.count) == (2.0, 1.0, 3.0, 2, 3)
    assert spread({1: 1.0, 2: 3.0}, greater_is_better=False).best_seed == 1
    assert spread({4: 0.5}).deviation is None


def predictions(rng: np.random.Generator, labels_N: np.ndarray, right: float) -> np.ndarray:
    return np.where(rng.random(labels_N.shape) < right, labels_N, 1 - labels_N)


def test_bootstrap_of_accuracy_agrees_with_the_normal_interval() -> None:
    """With one seed, the mean of N differences in {-1, 0, 1} has a known variance."""
    rng = np.random.default_rng(3)
    labels_N = rng.integers(0, 2, 4000)
    a_N, b_N = predictions(rng, labels_N, 0.80), predictions(rng, labels_N, 0.77)
    differences_N = (a_N == labels_N).astype(np.float64) - (b_N == labels_N)
    half = 1.959964 * differences_N.std() / math.sqrt(len(labels_N))
    found = paired_bootstrap(a_N[None], b_N[None], labels_N, ACCURACY, resamples=4000)
    assert found is not None
    assert found.value == pytest.approx(differences_N.mean(), abs=1e-15)
    assert found.low == pytest.approx(differences_N.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(differences_N.mean() + half, abs=0.1 * half)
    deviations = differences_N.mean() / (half / 1.959964)
    assert found.p == pytest.approx(math.erfc(deviations / math.sqrt(2)), abs=0.004)


def test_bootstrap_of_seeds_has_the_known_variance() -> None:
    """All examples are alike within a seed, so only the seeds vary: a binomial distribution."""
    labels_N = np.zeros(50, np.int64)
    a_SN = np.repeat(np.array([[0], [1], [1], [0], [0], [0]]), 50, axis=1)
    b_SN = np.ones_like(a_SN)
    found = paired_bootstrap(a_SN, b_SN, labels_N, ACCURACY, resamples=4000)
    assert found is not None
    assert found.value == pytest.approx(4 / 6)
    assert (found.low, found.high) == (pytest.approx(2 / 6), 1.0)
    assert found.p == pytest.approx(2 * (1 / 3) ** 6, abs=0.004)


def test_bootstrap_draws_an_example_with_all_its_labels() -> None:
    """The three labels of a row are the same, so the interval is that of the rows, not of three times as many."""
    rng = np.random.default_rng(5)
    labels_N = rng.integers(0, 2, 500)
    a_SN, b_SN = (predictions(rng, labels_N, right)[None] for right in (0.8, 0.7))
    one = paired_bootstrap(a_SN, b_SN, labels_N, ACCURACY)
    a_SNC, b_SNC, labels_NC = (np.repeat(each[..., None], 3, axis=-1) for each in (a_SN, b_SN, labels_N))
    three = paired_bootstrap(a_SNC, b_SNC, labels_NC, ACCURACY)
    assert one is not None
    assert three is not None
    assert (three.low, three.high, three.p) == pytest.approx((one.low, one.high, one.p))


def test_bootstrap_of_equal_predictions_and_of_undefined_ones() -> None:
    labels_N = np.array([0, 1, 0, 1])
    same = paired_bootstrap(labels_N[None], labels_N[None], labels_N, ACCURACY, resamples=50)
    assert same == Difference(0.0, 0.0, 0.0, 1.0)
    numbers_N = np.array([1.0, 2.0, 3.0])
    assert paired_bootstrap(np.ones((1, 3)), numbers_N[None], numbers_N, resampled("pearson"), resamples=5) is None
    with pytest.raises(ValueError, match="do not fit labels"):
        paired_bootstrap(labels_N[None], labels_N[None], labels_N[:3], ACCURACY)


@pytest.mark.parametrize(
    ("difference", "metric", "told"),
    [
        (
            Difference(0.008, 0.001, 0.015, 0.03),
            "f1",
            "On mrpc (validation, 408 examples) over 5 seeds, A is 0.80 f1 points above B (difference: 95% interval "
            "+0.10 to +1.50, p = 0.030): evidence that A is better on these examples.",
        ),
        (
            Difference(-0.008, -0.02, 0.004, 0.2),
            "f1",
            "A is 0.80 f1 points below B (difference: 95% interval -2.00 to +0.40",
        ),
        (Difference(-0.008, -0.02, 0.004, 0.2), "f1", "no evidence of a difference."),
        (Difference(-0.5, -0.6, -0.4, 0.001), "mse", "A is 0.50 mse below B"),
        (Difference(-0.5, -0.6, -0.4, 0.001), "mse", "evidence that A is better"),
        (
            Difference(0.0, -0.1, 0.1, 1.0),
            "micro_f1",
            "A and B have the same micro f1 (difference: 95% interval -10.00 to",
        ),
        (None, "pearson", "pearson of A or B is undefined"),
    ],
)
def test_sentences(difference: Difference | None, metric: str, told: str) -> None:
    assert told in sentence_of("mrpc", "validation", metric, "A", "B", (1, 2, 3, 4, 5), 408, difference)


def test_a_single_seed_is_said() -> None:
    assert "One seed says nothing" in sentence_of("t", "v", "f1", "A", "B", (1,), 9, Difference(0.1, 0.0, 0.2, 0.05))


def test_formats() -> None:
    grid = Grid(["a b", "n"], [["x|y_1", "1 ± 2"], ["z", "10"]], left=1)
    assert grid.text() == ["a b        n", "------------", "x|y_1  1 ± 2", "z         10"]
    assert grid.markdown() == ["| a b | n |", "| --- | --: |", r"| x\|y_1 | 1 ± 2 |", "| z | 10 |"]
    assert grid.csv() == "a b,n\nx|y_1,1 ± 2\nz,10\n"
    assert grid.latex() == [
        *(r"\begin{tabular}{lr}", r"\toprule", r"a b & n \\", r"\midrule"),
        *(r"x|y\_1 & 1 $\pm$ 2 \\", r"z & 10 \\", r"\bottomrule", r"\end{tabular}"),
    ]
