"""Tests numbers and sentences of a page's sections on made-up answers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ftsys.html_report.parts import Examples, Figure, Table
from ftsys.tasks import GLUE, Task

pytest.importorskip("matplotlib")

from ftsys.html_report.figures.lines import thinned
from ftsys.html_report.sections import examples
from ftsys.html_report.sections.answers import _by_class, _scatter
from ftsys.html_report.sections.learning import _by_epoch
from ftsys.html_report.sections.lengths import _shares


def answers(labels: Any, predictions: Any) -> Any:
    one = SimpleNamespace(labels=np.array(labels), predictions=np.array(predictions))
    return SimpleNamespace(title="m", variant="m", split="validation", predictions=[one])


def test_a_curve_keeps_its_first_and_its_last_point() -> None:
    points = [(float(x), float(x * x)) for x in range(100)]
    found = thinned(points, 6)
    assert (len(found), found[0], found[-1]) == (6, points[0], points[-1])
    assert thinned(points[:6], 6) == points[:6]


def test_evaluations_of_one_run_that_lie_close_are_rows_of_their_own() -> None:
    epochs = (0.0163, 0.0244, 0.0325)
    lines = [{"epoch": epoch, "step": 1, "split": "validation", "accuracy": epoch} for epoch in epochs]
    run = SimpleNamespace(name="m", evaluations=lines, splits=["validation"])
    variants = [SimpleNamespace(name="m", seeds=[run])]
    group: Any = SimpleNamespace(variants=variants, runs=[run], task=GLUE["rte"])
    rows = _by_epoch(group).rows
    assert [row[1].text for row in rows] == ["0.0163", "0.0244", "0.0325"]
    assert not any("±" in cell.text for row in rows for cell in row)


def test_each_label_of_a_regression_is_in_one_bin() -> None:
    labels = [0.0, 1.0, 1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 5.0]
    table = _scatter(answers(labels, np.zeros(9)), "a").data
    assert table is not None
    assert [row[1].number for row in table.rows] == [1, 2, 2, 1, 3]
    alike = _scatter(answers([2.0, 2.0], [1.0, 3.0]), "a").data
    assert alike is not None
    assert sum(row[1].number or 0 for row in alike.rows) == 2


def test_the_share_of_a_length_does_not_take_memory_for_each_example() -> None:
    assert _shares([0, 3 * 10**12, 0, 10**12], np.arange(0, 5, 2)).tolist() == [0.75, 0.25]


def test_no_matrix_is_made_of_classes_that_no_figure_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftsys.html_report.sections.answers.confusion", None)
    labels = tuple(map(str, range(100)))
    parts = _by_class(answers([0, 99], [0, 5]), Task("many", ("text",), labels, ("accuracy",)), "a")
    assert isinstance(parts[0], Table)
    assert [cell.text for cell in parts[0].rows[0]][:4] == ["0", "1.000", "1.000", "1.000"]


def test_the_most_frequent_confusion_is_said_where_there_is_one() -> None:
    def told(predictions: list[int]) -> str:
        parts = _by_class(answers([0, 1, 1], predictions), GLUE["mrpc"], "a")
        return next(part.description for part in parts if isinstance(part, Figure))

    assert "equivalent taken for not_equivalent, 50% of its examples." in told([0, 0, 1])
    assert told([0, 1, 1]).endswith("No errors.")


def test_examples_are_wrong_ones_only_however_high_the_loss_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With several labels, a right answer can have a higher mean loss than a wrong one."""
    badness, wrong = np.arange(40.0), np.arange(40) < 3
    monkeypatch.setattr(examples, "_ranked", lambda task, found: (np.arange(40), badness, wrong, 1))
    monkeypatch.setattr(examples, "_texts", lambda found, ids, task: ({}, ""))
    monkeypatch.setattr(examples, "_example", lambda task, found, number, texts, facts: number)
    section = examples.examples_section(GLUE["mrpc"], [answers([], [])], "a")
    assert [part.examples for part in section.parts if isinstance(part, Examples)] == [[2, 1, 0]]
