"""Tests files of predictions and the submissions to the GLUE server."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ftsys.errors import FtsysError, RunFolderError
from ftsys.run_folder.predictions import (
    SUBMISSIONS,
    read_labelled,
    read_predictions,
    read_scores,
    scores_from_logits,
    scores_of,
    write_predictions,
    write_submission,
)
from ftsys.tasks import GLUE, PARAPHRASE, Task


def _lines(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter="\t"))


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


def test_a_class_name_with_a_carriage_return_reads_back(tmp_path: Path) -> None:
    """Python before 3.11.9 does not quote it by itself."""
    task = Task("mine", ("text",), ("a\rb", "c"), ("accuracy",))
    write_predictions(tmp_path / "p.tsv", [0, 1], [0, 1], [0, 1], [[1.0, 0.0], [0.0, 1.0]], task)
    assert read_predictions(tmp_path / "p.tsv") == [("0", "a\rb"), ("1", "c")]


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


def test_a_submission_has_the_servers_labels_whatever_the_order_of_the_tasks_own(tmp_path: Path) -> None:
    for name, labels, cells in (
        ("mrpc", ("equivalent", "not_equivalent"), ["1", "0"]),
        ("rte", ("not_entailment", "entailment"), ["not_entailment", "entailment"]),
    ):
        path = write_submission(tmp_path, replace(GLUE[name], labels=labels), "test", [0, 1], [0, 1])
        assert path is not None
        assert [line.split("\t")[1] for line in path.read_text().splitlines()[1:]] == cells
    assert write_submission(tmp_path, replace(GLUE["mrpc"], labels=("no", "yes")), "test", [0], [1]) is None


def test_no_submission_where_the_server_has_none(tmp_path: Path) -> None:
    assert write_submission(tmp_path, GLUE["mrpc"], "validation", [0], [1]) is None
    assert write_submission(tmp_path, PARAPHRASE, "test", [0], [1]) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("indexes", [[0, 2], [1, 2], [0, 0]])
def test_a_submission_with_gaps_is_refused(tmp_path: Path, indexes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"gaps|twice"):
        write_submission(tmp_path, GLUE["mrpc"], "test", indexes, [0, 1])


def test_predictions_of_several_labels_are_names_that_a_run_reads(tmp_path: Path) -> None:
    task = Task("moods", ("text",), ("joy", "anger"), ("micro_f1",), multi_label=True)
    logits = np.array([[0.5, 3.0], [-1.0, 2.0], [-800.0, 0.0]], np.float32)
    labels = np.array([[1, 0], [0, 0], [-1, -1]], np.int8)
    write_predictions(tmp_path / "p.tsv", [2, 0, 1], logits, labels, scores_of(logits, task), task)
    assert (tmp_path / "p.tsv").read_text() == (
        "index\tprediction\tlabel\tscore_joy\tscore_anger\n"
        "0\tanger\t[]\t0.268941\t0.880797\n"
        "1\t[]\t\t0\t0.5\n"
        "2\tjoy;anger\tjoy\t0.622459\t0.952574\n"
    )
    odd = Task("moods", ("text",), ("joy; hope", "anger"), ("micro_f1",), multi_label=True)
    write_predictions(tmp_path / "p.tsv", [0], logits[:1], None, scores_of(logits[:1], odd), odd)
    assert _lines(tmp_path / "p.tsv")[1][1] == '["joy; hope", "anger"]'


@pytest.mark.parametrize("names", [("joy", "anger"), ("joy; hope", "[anger]"), ("joy|", 'an"ger')])
def test_predictions_of_several_labels_read_back(tmp_path: Path, names: tuple[str, str]) -> None:
    task = Task("moods", ("text",), names, ("micro_f1",), multi_label=True)
    logits = np.array([[0.5, 3.0], [-1.0, 2.0], [-800.0, -1.0]])
    labels = np.array([[1, 0], [0, 0], [1, 1]], np.int8)
    write_predictions(tmp_path / "p.tsv", [2, 0, 1], logits, labels, scores_of(logits, task), task)
    found = read_labelled(tmp_path / "p.tsv", task)
    assert found.ids.tolist() == [0, 1, 2]
    assert found.predictions.tolist() == [[0, 1], [0, 0], [1, 1]]
    assert found.labels is not None
    assert found.labels.tolist() == [[0, 0], [1, 1], [1, 0]]
    assert found.scores is not None
    assert found.scores[2].tolist() == pytest.approx([0.622459, 0.952574], abs=1e-6)
    write_predictions(tmp_path / "p.tsv", [0], logits[:1], None, scores_of(logits[:1], task), task)
    assert read_labelled(tmp_path / "p.tsv", task).labels is None


@pytest.mark.parametrize("kept", [0, 12, 40, 75])
def test_a_file_that_is_cut_off_is_damage(tmp_path: Path, kept: int) -> None:
    scores = np.array([[0.25, 0.75], [0.9, 0.1]])
    write_predictions(tmp_path / "p.tsv", [0, 1], [1, 0], [1, 1], scores, GLUE["mrpc"])
    text = (tmp_path / "p.tsv").read_text()
    (tmp_path / "p.tsv").write_text(text[:kept])
    with pytest.raises(RunFolderError, match="is damaged"):
        read_labelled(tmp_path / "p.tsv", GLUE["mrpc"])


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.tsv")
    for read in (read_labelled, read_scores):
        with pytest.raises(FtsysError, match="no regular file"):
            read(tmp_path / "p.tsv", GLUE["mrpc"])


@pytest.mark.parametrize("cell", ["grief", "", '["joy"', "[1]", '{"joy": 1}'])
@pytest.mark.parametrize("names", [("joy", "anger"), ("joy", "a;b")])
def test_a_cell_that_is_no_list_of_labels_is_damage(tmp_path: Path, names: tuple[str, str], cell: str) -> None:
    task = Task("moods", ("text",), names, ("micro_f1",), multi_label=True)
    head = "\t".join(["index", "prediction", "label", *(f"score_{name}" for name in names)])
    (tmp_path / "p.tsv").write_text(f"{head}\n0\t{cell}\t[]\t0.5\t0.5\n")
    with pytest.raises(RunFolderError, match="is damaged"):
        read_labelled(tmp_path / "p.tsv", task)
