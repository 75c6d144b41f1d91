"""What a finished run leaves behind."""

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftsys.run_folder import environment as environment_module
from ftsys.run_folder.environment import commit, environment
from ftsys.run_folder.predictions import SUBMISSIONS, scores_from_logits, write_predictions, write_submission
from ftsys.run_folder.results import RESULT_KEYS, model_card, write_results
from ftsys.tasks import GLUE, PARAPHRASE, Task

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


def _lines(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter="\t"))


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


def test_scores_are_the_pipelines_softmax() -> None:
    torch = pytest.importorskip("torch")
    logits = np.array([[1.0, -2.0, 0.5], [1000.0, 999.0, -1000.0]], dtype=np.float32)
    expected = torch.softmax(torch.tensor(logits, dtype=torch.float64), dim=1).numpy()
    assert scores_from_logits(logits) == pytest.approx(expected, abs=1e-15)


def test_predictions_of_classes_come_in_data_set_order_by_name(tmp_path: Path) -> None:
    scores = np.array([[0.25, 0.75], [0.9, 0.1], [0.123456789, 0.876543211]])
    path = tmp_path / "predictions" / "validation.tsv"
    write_predictions(path, [2, 0, 1], [1, 0, 1], [1, 1, -1], scores, GLUE["mrpc"])
    assert path.read_text() == (
        "index\tprediction\tlabel\tscore_not_equivalent\tscore_equivalent\n"
        "0\tnot_equivalent\tequivalent\t0.9\t0.1\n"
        "1\tequivalent\t\t0.123457\t0.876543\n"
        "2\tequivalent\tequivalent\t0.25\t0.75\n"
    )


def test_predictions_of_numbers_read_back_exactly(tmp_path: Path) -> None:
    values = np.array([0.1, 5.25, -1e-7])
    write_predictions(tmp_path / "p.tsv", np.arange(3), values, np.array([np.nan, 5.0, 0.0]), None, GLUE["stsb"])
    header, *rows = _lines(tmp_path / "p.tsv")
    assert header == ["index", "prediction", "label"]
    assert [float(row[1]) for row in rows] == values.tolist()
    assert [row[2] for row in rows] == ["", "5.0", "0.0"]


def test_predictions_without_labels_and_odd_class_names(tmp_path: Path) -> None:
    task = Task("mine", ("text",), ("with\ttab", 'with "quote"'), ("accuracy",))
    write_predictions(tmp_path / "p.tsv", [0, 1], [0, 1], None, [[1.0, 0.0], [0.0, 1.0]], task)
    header, *rows = _lines(tmp_path / "p.tsv")
    assert header[3:] == ["score_with\ttab", 'score_with "quote"']
    assert [row[:3] for row in rows] == [["0", "with\ttab", ""], ["1", 'with "quote"', ""]]


@pytest.mark.parametrize(
    ("indexes", "predictions", "scores", "message"),
    [
        ([0, 0], [0, 1], [[1, 0], [0, 1]], "twice"),
        ([0, 1], [0], [[1, 0], [0, 1]], r"\(1,\) values for \(2,\) indexes"),
        ([0, 1], [0, 1], [[1, 0, 0], [0, 1, 0]], "3 scores a row for the 2 classes"),
    ],
)
def test_predictions_that_do_not_fit(
    tmp_path: Path, indexes: list[int], predictions: list[int], scores: list[list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_predictions(tmp_path / "p.tsv", indexes, predictions, None, scores, GLUE["mrpc"])
    assert list(tmp_path.iterdir()) == []


def test_every_test_split_of_glue_has_its_submission() -> None:
    assert set(SUBMISSIONS) == {(task.name, split) for task in GLUE.values() for split in task.test_splits}
    assert len(set(SUBMISSIONS.values())) == len(SUBMISSIONS)


@pytest.mark.parametrize(
    ("name", "split", "predictions", "file", "cells"),
    [
        ("cola", "test", [0, 1], "CoLA.tsv", ["0", "1"]),
        ("sst2", "test", [0, 1], "SST-2.tsv", ["0", "1"]),
        ("mrpc", "test", [0, 1], "MRPC.tsv", ["0", "1"]),
        ("qqp", "test", [0, 1], "QQP.tsv", ["0", "1"]),
        ("wnli", "test", [0, 1], "WNLI.tsv", ["0", "1"]),
        ("stsb", "test", [-0.25, 5.5], "STS-B.tsv", ["0.000", "5.000"]),
        ("stsb", "test", [1.23456, 4.9996], "STS-B.tsv", ["1.235", "5.000"]),
        ("rte", "test", [0, 1], "RTE.tsv", ["entailment", "not_entailment"]),
        ("qnli", "test", [0, 1], "QNLI.tsv", ["entailment", "not_entailment"]),
        ("mnli", "test_matched", [2, 1], "MNLI-m.tsv", ["contradiction", "neutral"]),
        ("mnli", "test_mismatched", [0, 1], "MNLI-mm.tsv", ["entailment", "neutral"]),
        ("ax", "test", [0, 2], "AX.tsv", ["entailment", "contradiction"]),
    ],
)
def test_submissions_as_the_server_wants_them(
    tmp_path: Path, name: str, split: str, predictions: list[float], file: str, cells: list[str]
) -> None:
    path = write_submission(tmp_path, GLUE[name], split, [1, 0], predictions[::-1])
    assert path == tmp_path / "submission" / file
    assert path.read_text() == f"index\tprediction\n0\t{cells[0]}\n1\t{cells[1]}\n"


def test_no_submission_where_the_server_has_none(tmp_path: Path) -> None:
    assert write_submission(tmp_path, GLUE["mrpc"], "validation", [0], [1]) is None
    assert write_submission(tmp_path, PARAPHRASE, "test", [0], [1]) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("indexes", [[0, 2], [1, 2], [0, 0]])
def test_a_submission_with_gaps_is_refused(tmp_path: Path, indexes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"gaps|twice"):
        write_submission(tmp_path, GLUE["mrpc"], "test", indexes, [0, 1])


def test_environment_can_be_written(tmp_path: Path) -> None:
    found = json.loads(json.dumps(environment()))
    assert found["versions"]["numpy"] == np.__version__
    assert set(found["versions"]) >= {"python", "ftsys", "torch", "transformers"}
    assert found["cpu_cores"] >= 1
    assert found["memory_bytes"] > 2**28
    assert found["cpu"]
    assert isinstance(found["command"], list)


def test_commit_of_a_checkout_and_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "checkout" / "ftsys" / "train"
    package.mkdir(parents=True)
    source = package / "results.py"
    source.write_text("")
    monkeypatch.setattr(environment_module, "__file__", str(source))
    assert commit() is None, "no repository"

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@y", "-c", "core.hooksPath=/dev/null"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path / "checkout", check=True, capture_output=True)

    git("init", "-q")
    (package / "other.py").write_text("")
    git("add", "ftsys/train/other.py")
    git("commit", "-qm", "x")
    assert commit() is None, "installed inside somebody else's repository"
    git("add", ".")
    git("commit", "-qm", "y")
    head = commit()
    assert head is not None
    assert len(head) == 40
    source.write_text("# changed")
    assert commit() == f"{head}+"
    monkeypatch.setenv("PATH", "")
    assert commit() is None, "no git"


def test_the_model_card_says_what_it_is() -> None:
    text = model_card(RESULTS)
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert "# all-MiniLM-L6-v2 fine-tuned on mrpc" in text
    assert "| validation | accuracy | 0.8088 |" in text
    assert "3 epochs, 345 steps of\n32 examples, bf16, seed 42" in text
    assert "synthetic" not in text
    assert "training data is synthetic" in model_card(RESULTS, synthetic=True)
