"""Tests the comparison of two models whose runs have predictions, with one label and with several labels an example."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ftsys.errors import ConfigError, StorageError
from ftsys.metrics import compute
from ftsys.run_folder.layout import predictions_file
from ftsys.run_folder.predictions import scores_of, write_predictions
from ftsys.table.dry_run import duration
from ftsys.table.results import show
from ftsys.table.results.collect import Entry, SeedResult, averages
from ftsys.table.results.compare import compare, rows_of
from ftsys.table.results.grids import notes, notes_on_times, times
from ftsys.table.state import CellState
from ftsys.tasks import GLUE, Task

MOODS = Task(
    "moods", ("text",), ("joy", "anger", "fear"), ("micro_f1", "subset_accuracy", "average_precision"), multi_label=True
)
ROWS = 60


def entry(folder: Path, model: str, task: Task, seeds: Sequence[int], right: float) -> Entry:
    """Write a run for each seed whose answers are right with that probability; all have the same examples."""
    labels = np.random.default_rng(0).integers(0, 2, (ROWS, 3) if task.multi_label else ROWS)
    results = []
    for seed in seeds:
        rng = np.random.default_rng([seed, round(1000 * right)])
        answers = np.where(rng.random(labels.shape) < right, labels, 1 - labels)
        logits = (answers if task.multi_label else np.stack([1 - answers, answers], axis=1)) * 2.0 - 1.0
        logits = logits * rng.uniform(0.5, 2.0, logits.shape)
        run = folder / model / str(seed)
        order = rng.permutation(ROWS)
        predictions = logits if task.multi_label else answers
        scores = scores_of(logits, task)
        assert scores is not None
        path = predictions_file(run, "validation")
        write_predictions(path, order, predictions[order], labels[order].astype(np.int8), scores[order], task)
        energy = {"joules": 3600.0 * seed, "counter": "rapl", "not_told": ""}
        cell: Any = SimpleNamespace(seed=seed, folder=run)
        results.append(SeedResult(cell, {}, "", {"total_s": 60.0}, {}, energy, "validation"))
    return Entry(model, task.name, task, tuple(results), {}, {})


def test_several_labels_are_compared_by_each_metric(tmp_path: Path) -> None:
    entries = [entry(tmp_path, "good", MOODS, (1, 2), 0.95), entry(tmp_path, "bad", MOODS, (2, 1, 3), 0.6)]
    found = compare(entries, "good", "bad")
    assert [one.metric for one in found] == ["micro_f1", "subset_accuracy", "average_precision"]
    for one in found:
        assert (one.seeds, one.examples) == ((1, 2), ROWS)
        assert one.difference is not None
        assert one.difference.low > 0, one.sentence
        assert "points above bad" in one.sentence
        assert "evidence that good is better" in one.sentence


def test_metrics_that_rank_examples_take_the_scores(tmp_path: Path) -> None:
    """The files have six digits of each score, which keep the order of the logits."""
    one, other = entry(tmp_path, "one", MOODS, (1,), 0.8), entry(tmp_path, "other", MOODS, (1,), 0.7)
    found = {each.metric: each.difference for each in compare([one, other], "one", "other")}
    values = []
    for right in (0.8, 0.7):
        labels_NC = np.random.default_rng(0).integers(0, 2, (ROWS, 3))
        rng = np.random.default_rng([1, round(1000 * right)])
        logits_NC = np.where(rng.random(labels_NC.shape) < right, labels_NC, 1 - labels_NC) * 2.0 - 1.0
        logits_NC = logits_NC * rng.uniform(0.5, 2.0, logits_NC.shape)
        values.append(compute(MOODS.metrics, logits_NC, labels_NC))
    for name, difference in found.items():
        assert difference is not None
        assert difference.value == pytest.approx(values[0][name] - values[1][name], abs=1e-12)


def test_other_examples_and_no_common_seed_are_said(tmp_path: Path) -> None:
    one = entry(tmp_path, "one", MOODS, (1,), 0.9)
    (only,) = compare([one, entry(tmp_path, "other", MOODS, (2,), 0.9)], "one", "other")
    assert only.sentence == "On moods, one and other cannot be compared: no seed is finished for both."
    other = entry(tmp_path, "changed", MOODS, (1,), 0.9)
    path = predictions_file(tmp_path / "changed/1", "validation")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    (only,) = compare([one, other], "one", "changed")
    assert only.sentence == "On moods, one and changed cannot be compared: their validation examples differ."


def test_predictions_that_do_not_fit_are_said_and_the_table_is_written(tmp_path: Path) -> None:
    one, other = entry(tmp_path, "one", MOODS, (1, 2), 0.9), entry(tmp_path, "other", MOODS, (1, 2), 0.9)
    path = predictions_file(tmp_path / "other/2", "validation")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    rte = [entry(tmp_path / "rte", name, GLUE["rte"], (1,), 0.9) for name in ("one", "other")]
    found = compare([one, other, *rte], "one", "other")
    assert [each.task for each in found] == ["moods", "rte"]
    assert found[0].sentence == (
        f"On moods, one and other cannot be compared: {str(path)!r} has not the examples of the other seeds: start its "
        "run anew."
    )


def test_a_table_that_cannot_be_written_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise StorageError("read-only")

    monkeypatch.setattr(show, "collect", lambda *_: [])
    monkeypatch.setattr(show, "_lines", lambda *_: [show.Line("Scores", "title")])
    monkeypatch.setattr(show, "write_table", refuse)
    with pytest.raises(StorageError):
        show.show_results(tmp_path, [], {}, None)
    assert "Scores" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pair", "rows"),
    [
        (("google/electra-small", "bundled"), ("google--electra-small", "bundled")),
        (("google--electra-small", "some/where/recipe.toml"), ("google--electra-small", "recipe")),
    ],
)
def test_rows_are_named_as_in_the_table_or_as_its_models(pair: tuple[str, str], rows: tuple[str, str]) -> None:
    assert rows_of(pair, ["bundled", "google--electra-small", "recipe", "bundled"]) == rows


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        (
            ("google/electra-smal", "bundled"),
            "'google/electra-smal' is no model of the table: did you mean 'google--el",
        ),
        (("a/b", "a--b"), "'a--b' 'a--b' names one model twice"),
    ],
)
def test_wrong_pairs(pair: tuple[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        rows_of(pair, ["bundled", "google--electra-small", "a--b"])


def test_seeds_of_data_that_changed_in_between_are_said(tmp_path: Path) -> None:
    whole = entry(tmp_path, "m", MOODS, (1, 2), 0.9)
    seeds = [replace(seed, store=name * 64) for seed, name in zip(whole.seeds, "ab", strict=True)]
    told = "m, moods: the data has changed between the runs of its seeds (stores aaaaaaaaaaaaaaaa, bbbbbbbbbbbbbbbb)."
    assert told in notes([replace(whole, seeds=tuple(seeds))])
    assert told[:20] not in " ".join(notes([replace(whole, seeds=(seeds[0], seeds[0]))]))


def test_remarks_say_what_a_score_is_and_why_an_average_is_missing(tmp_path: Path) -> None:
    stopped = {4: CellState("failed", 2, "exit status 1: out of luck")}
    entries = [Entry("m", name, GLUE[name], (), stopped if name == "rte" else {}, {}) for name in ("rte", "mrpc")]
    own = Task("size", ("text",), (), ("mse", "pearson"), regression=True)
    entries += [Entry("m", one.name, one, (), {}, {"train": 4000}) for one in (MOODS, own)]
    assert notes(entries)[1:] == [
        "m, rte, seed 4: failed: exit status 1: out of luck",
        "moods: its score is its first metric, micro f1.",
        "moods: only the first 4,000 rows of train.",
        "size: its score is its first metric, mse, not x 100.",
        "size: only the first 4,000 rows of train.",
        "m has no mean of 2 GLUE tasks: a run is not finished, a metric is undefined, or a score is not in points.",
    ]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (45.4, "45 s"),
        (89.6, "90 s"),
        (150.0, "2 min 30 s"),
        (599.7, "10 min 00 s"),
        (721.0, "12 min"),
        (11_100, "3 h 05 min"),
    ],
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_one_label_is_compared_as_before(tmp_path: Path) -> None:
    entries = [entry(tmp_path, name, GLUE["rte"], (1, 2, 3), right) for name, right in (("a", 0.9), ("b", 0.9001))]
    (only,) = compare(entries, "a", "b")
    assert "no evidence of a difference" in only.sentence


def test_energy_is_in_the_grid_of_times_or_said_not_to_be_told(tmp_path: Path) -> None:
    told = entry(tmp_path, "told", GLUE["rte"], (1, 2), 0.9)
    unknown = entry(tmp_path, "not", GLUE["rte"], (1,), 0.9)
    energy = {"joules": None, "counter": None, "not_told": "no counter"}
    unknown = replace(unknown, seeds=(replace(unknown.seeds[0], energy=energy),))
    old = entry(tmp_path, "old", GLUE["rte"], (1,), 0.9)
    old = replace(old, seeds=(replace(old.seeds[0], energy={}),))
    nothing = Entry("nothing", "rte", GLUE["rte"], (), {}, {})
    assert [row[-1] for row in times([told, unknown, old, nothing]).rows] == ["1.50", "not told", "not told", ""]
    notes = notes_on_times([told, unknown, old, nothing])
    assert notes[0].startswith("Energy: of the CPUs and the memory of the whole machine while the run trained")
    assert notes[1:] == ["Energy that is not told: no counter."]
    assert notes_on_times([old]) == []


def test_a_run_without_a_labelled_split_is_not_compared(tmp_path: Path) -> None:
    one, other = (entry(tmp_path, name, MOODS, (1,), 0.9) for name in ("one", "other"))
    for task in (MOODS, replace(MOODS, evaluation_splits=())):
        blind = replace(other, task=task, seeds=tuple(replace(result, split="") for result in other.seeds))
        (only,) = compare([one, blind], "one", "other")
        assert only.difference is None
        assert only.sentence.endswith("cannot be compared: not all of their runs have a labelled validation split.")


def test_only_columns_of_glue_itself_are_averaged() -> None:
    def column(name: str, task: Task, start: str = "") -> Entry:
        return Entry("m", name, task, (), {}, {}, start)

    own = replace(MOODS, name="reviews")
    assert column("sst2", GLUE["sst2"]).averaged == "sst2"
    assert column("rte-from-mnli", GLUE["rte"], "mnli").averaged == "rte"
    assert column("sst2", own).averaged == "", "the file sst2.toml of a task of one's own"
    assert column("mrpc-cut", GLUE["mrpc"]).averaged == ""
    assert column("reviews-from-amazon", own).start == ""


def test_an_error_is_not_averaged_with_points() -> None:
    def column(model: str, name: str, value: float, *metrics: str) -> Entry:
        task = replace(GLUE[name], metrics=metrics)
        cell: Any = SimpleNamespace(seed=1, task=task)
        return Entry(model, name, task, (SeedResult(cell, {metrics[0]: value}, "", {}, {}, {}),), {}, {})

    classes = [column("m", "rte", 0.5, "accuracy"), column("m", "sst2", 0.9, "accuracy")]
    error = column("m", "stsb", 2.5, "mse", "pearson")
    assert averages([classes[0], error]) == ("", {})
    name, means = averages([*classes, error])
    average = means["m"]
    assert average is not None
    assert (name, average.mean) == ("mean of 2 GLUE tasks", 0.7)
    assert "stsb: its score is its first metric, mse, not x 100, and in no average." in notes([*classes, error])
    others = [
        column("n", "rte", 0.5, "accuracy"),
        column("n", "sst2", 0.9, "accuracy"),
        column("n", "stsb", 0.8, "pearson"),
    ]
    name, means = averages([*classes, error, *others])
    assert (name, means["m"]) == ("mean of 3 GLUE tasks", None), "a mean of other tasks than its name says"
