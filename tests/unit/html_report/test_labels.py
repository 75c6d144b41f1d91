"""Tests the page of a task with several labels an example: scores and counts of each label, calibration, examples."""

from pathlib import Path

import numpy as np
import pytest

from ftsys.html_report.answers import answers_of
from ftsys.html_report.facts import read_run_facts
from ftsys.html_report.groups import groups_of
from ftsys.html_report.page import Page, make_page, render
from ftsys.html_report.parts import Examples, Figure, Note, Table
from ftsys.html_report.predictions import read_split_predictions
from ftsys.html_report.sections.labels import MOST_CONFUSED, by_label
from ftsys.tasks import Task
from tests.unit.html_report.folders import MOODS, write_moods


@pytest.fixture
def page(tmp_path: Path) -> Page:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    folders = [write_moods(tmp_path / f"seed-{seed}", seed) for seed in (1, 2)]
    return make_page([read_run_facts(folder, folder.name) for folder in folders], "moods")


def parts_of(page: Page, title: str) -> list[object]:
    return [part for chapter in page.chapters for one in chapter.sections if one.title == title for part in one.parts]


def test_each_label_has_its_scores_and_counts(page: Page) -> None:
    (table,) = (part for part in parts_of(page, "Labels on validation") if isinstance(part, Table))
    assert list(table.header) == ["label", "precision", "recall", "F1", "average precision", "examples", "predicted"]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert list(rows) == list(MOODS)
    same = " ± 0.000"
    assert rows["joy"] == [f"0.500{same}", f"0.500{same}", f"0.500{same}", f"0.500{same}", "2", "2.0"]
    assert rows["anger"] == [f"1.000{same}", f"1.000{same}", f"1.000{same}", f"1.000{same}", "1", "1.0"]
    assert rows["fear"][:3] == [f"0.000{same}"] * 3


def test_the_figures_have_the_numbers_as_tables(page: Page) -> None:
    counts = page.figures["task-1-label-counts"]
    assert "Most often missed: fear, 100% of its examples." in counts.description
    assert counts.data is not None
    assert [[cell.text for cell in row] for row in counts.data.rows] == [
        ["joy", "1.0", "1.0", "1.0", "1.0"],
        ["anger", "1.0", "0.0", "0.0", "3.0"],
        ["fear", "0.0", "1.0", "2.0", "1.0"],
    ]
    assert "Mean F1 of all labels: 0.5000 ± 0.0000." in page.figures["task-1-labels"].description
    text = render(page)
    assert "scores by label" in text
    assert "confusion by label" in text
    assert len(text.encode()) < 2_000_000


def test_calibration_counts_each_label_of_each_example(page: Page) -> None:
    figure, _ = parts_of(page, "Calibration")
    assert isinstance(figure, Figure)
    assert figure.data is not None
    assert sum(int(row[1].number or 0) for row in figure.data.rows) == 2 * 4 * 3


def test_examples_name_all_labels_and_come_with_their_text(page: Page) -> None:
    (examples,) = (
        part
        for part in parts_of(page, "Examples that are most often and most clearly wrong")
        if isinstance(part, Examples)
    )
    told = {one.facts["example"]: (one.facts["label"], one.facts["tiny, seed 1"]) for one in examples.examples}
    assert told == {"1": ("no label", "joy, fear"), "2": ("joy, fear", "no label"), "3": ("anger", "anger, fear")}
    assert all(one.facts["wrong in"] == "2 of 2 runs" for one in examples.examples)
    assert examples.examples[0].texts


def test_many_labels_have_a_figure_of_the_most_frequent_ones(tmp_path: Path) -> None:
    names = tuple(f"label {number}" for number in range(MOST_CONFUSED + 30))
    folder = write_moods(tmp_path / "one")
    (group,) = groups_of([read_run_facts(folder, "one")])
    (answers,) = answers_of(group, "validation", [])
    wide = np.tile(answers.predictions[0].labels, (1, 16))[:, : len(names)]
    one = type(answers.predictions[0])(np.arange(4), wide, wide, wide.astype(np.float64))
    task = Task("moods", ("text",), names, ("micro_f1",), multi_label=True)
    figure, note, table = by_label(type(answers)("m", "validation", answers.runs, [one]), task, "a")
    assert isinstance(figure, Figure)
    assert f"The 30 most frequent of {len(names)} labels." in figure.description
    assert isinstance(table, Table)
    assert len(table.rows) == len(names)
    assert isinstance(note, Note)
    assert "up to 16 can be read" in note.text


def test_a_label_that_is_none_of_the_task_is_a_remark(tmp_path: Path) -> None:
    folder = write_moods(tmp_path / "one")
    path = folder / "predictions/validation.tsv"
    path.write_text(path.read_text().replace("anger;fear", "grief"))
    notes: list[Note] = []
    assert answers_of(groups_of([read_run_facts(folder, "one")])[0], "validation", notes) == []
    assert "validation.tsv cannot be read ('grief')" in notes[0].text


def test_a_diverged_run_has_no_calibration(tmp_path: Path) -> None:
    folder = write_moods(tmp_path / "one")
    path = folder / "predictions/validation.tsv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *("\t".join([*row.split("\t")[:3], *["nan"] * 3]) for row in rows)]) + "\n")
    run = read_run_facts(folder, "one")
    found = read_split_predictions(folder, "validation", run.task)
    assert found is not None
    decisions = found.decisions()
    assert decisions is not None
    assert len(decisions[1]) == 0
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    assert "No run has finite probabilities." in render(make_page([run], "moods"))
