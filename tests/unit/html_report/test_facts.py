"""Tests the reading of run folders for a report: whole ones, half-written ones, and the groups they form."""

from pathlib import Path

import pytest

from ftsys.errors import DataError
from ftsys.html_report.answers import answers_of
from ftsys.html_report.facts import read_run_facts
from ftsys.html_report.groups import groups_of, with_spread
from ftsys.html_report.parts import Note, Table
from ftsys.html_report.predictions import read_split_predictions
from ftsys.html_report.sections.overview import overview_section, summary
from ftsys.run_folder.discover import find_run_folders
from tests.unit.html_report.folders import write_run


def test_a_finished_run(tmp_path: Path) -> None:
    run = read_run_facts(write_run(tmp_path / "one"), "one")
    assert (run.state, run.step, run.seed, run.model, run.task.name) == ("done", 20, 1, "tiny", "mood")
    assert run.metrics() == {"validation": {"accuracy": 0.51, "loss": 0.5}}
    assert (len(run.steps), len(run.evaluations), list(run.problems)) == (10, 2, [])
    assert run.data is not None
    assert run.data.lengths == {"train": [0, 0, 0, 1, 3]}


def test_an_unfinished_run_shows_what_there_is(tmp_path: Path) -> None:
    run = read_run_facts(write_run(tmp_path / "one", finished=False), "one")
    assert (run.finished, run.state, run.seed, run.model) == (False, "running", 1, "tiny")
    assert run.metrics()["validation"]["accuracy"] == 0.51
    text = [part.text for part in overview_section(groups_of([run])).parts if isinstance(part, Note)]
    assert text == ["one is unfinished (running, step 20 of 20). The page shows what there is."]
    assert summary(groups_of([run])) == "1 run of 1 task with tiny, 1 unfinished."


def test_a_run_that_has_ended_without_results_is_not_called_unfinished(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    (folder / "results.json").unlink()
    parts = overview_section(groups_of([read_run_facts(folder, "one")])).parts
    text = [part.text for part in parts if isinstance(part, Note)]
    assert text == ["one has ended, but has no results that can be read. The page shows what there is."]


@pytest.mark.parametrize("name", ["config.toml", "plan.json", "env.json", "data.json", "results.json", "metrics.jsonl"])
def test_half_a_file_is_a_remark_and_no_error(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "one")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    run = read_run_facts(folder, "one")
    assert all(name in problem and problem.startswith("one: ") for problem in run.problems)
    assert bool(run.problems) == (name != "metrics.jsonl")  # its torn lines are left out with a warning
    assert groups_of([run])[0].runs == [run]


def test_runs_of_two_tasks_are_two_groups_even_with_one_name(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "seed-1")
    write_run(tmp_path / "a" / "seed-2", seed=2)
    write_run(tmp_path / "b" / "seed-1", labels=["bad", "good", "so"])
    groups = groups_of([read_run_facts(folder, str(folder)) for folder in find_run_folders(tmp_path)])
    assert [len(group.runs) for group in groups] == [2, 1]
    assert [group.title for group in groups] == ["mood (task 1: bad, good)", "mood (task 2: bad, good, so)"]


def test_variants_are_named_by_their_model_and_by_what_differs(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=2)
    write_run(tmp_path / "c", model="models/other")
    changed = write_run(tmp_path / "d", seed=3) / "config.toml"
    changed.write_text(changed.read_text().replace("epochs = 2.0", "epochs = 4.0"))
    group = groups_of([read_run_facts(folder, folder.name) for folder in find_run_folders(tmp_path)])[0]
    assert {variant.name: len(variant.runs) for variant in group.variants} == {
        "tiny, epochs=2.0": 2,
        "other": 1,
        "tiny, epochs=4.0": 1,
    }


def test_run_folders_are_found_in_natural_order_and_not_below_a_run(tmp_path: Path) -> None:
    for name in ("t/m/task/seed-10", "t/m/task/seed-2", "t/m/task/seed-2/inner", "t/.hidden/seed-1", "t/1/2/3/4/5"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "status.json").write_text("{}")
    found = [str(folder.relative_to(tmp_path)) for folder in find_run_folders(tmp_path / "t")]
    assert found == ["t/m/task/seed-2", "t/m/task/seed-10"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("score_good", "score_other", "its columns are"),
        ("\tgood\t", "\tbetter\t", "'better' is none of the classes bad, good"),
        ("0.9\t", "", "has not 5 columns"),
        ("1\tbad", "x\tbad", "invalid literal"),
        ("0.9", "many", "could not convert"),
    ],
)
def test_predictions_that_cannot_be_read(tmp_path: Path, before: str, after: str, message: str) -> None:
    folder = write_run(tmp_path / "one")
    path = folder / "predictions" / "validation.tsv"
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(DataError, match=message):
        read_split_predictions(folder, "validation", read_run_facts(folder, "one").task)


def test_predictions_of_labelled_rows(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    task = read_run_facts(folder, "one").task
    found = read_split_predictions(folder, "validation", task)
    assert found is not None
    assert found.labels.tolist() == [0, 1, 0, 1]
    assert found.predictions.tolist() == [0, 0, 0, 0]
    assert found.scores is not None
    assert found.scores[0].tolist() == [0.9, 0.1]
    assert read_split_predictions(folder, "test", task) is None


def test_spread() -> None:
    assert with_spread([0.5]) == "0.5000"
    assert with_spread([0.5, 0.7], 2) == "0.60 ± 0.14"


def test_a_repeated_seed_is_in_the_table_of_runs_and_in_no_mean(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    groups = groups_of([read_run_facts(folder, folder.name) for folder in folders])
    assert [run.name for run in groups[0].variants[0].seeds] == ["a", "c"]
    note, spread, runs = overview_section(groups).parts
    assert isinstance(note, Note)
    assert note.text.startswith("mood: 1 run has the settings and the seed of another one.")
    assert isinstance(spread, Table)
    assert spread.rows[0][-1].text == "2"
    assert isinstance(runs, Table)
    assert [row[0].text for row in runs.rows] == ["a", "b", "c"]
    assert "over 2 seeds" in summary(groups)
    assert [answers.title for answers in answers_of(groups[0], "validation", [])] == ["tiny, 2 seeds"]


def test_of_two_runs_of_a_seed_the_finished_one_counts(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a", finished=False), write_run(tmp_path / "b")]
    (group,) = groups_of([read_run_facts(folder, folder.name) for folder in folders])
    assert [run.name for run in group.variants[0].seeds] == ["b"]
