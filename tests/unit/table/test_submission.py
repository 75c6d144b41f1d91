"""Tests which seed's predictions go into a submission, and the run that predicts AX with an MNLI model."""

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftsys.config import build_run, plain_tree
from ftsys.errors import ConfigError
from ftsys.run_folder.claim import claim_run_folder
from ftsys.table.cells import cells_of
from ftsys.table.results import submission
from ftsys.table.results.collect import Entry, SeedResult
from ftsys.table.results.submission import _of_diagnostic, write_submissions
from ftsys.table.spec import read_spec
from ftsys.tasks import GLUE


def test_a_run_of_mnli_becomes_one_of_ax_whatever_it_evaluates() -> None:
    mnli = build_run(
        {
            "output_dir": "out",
            "task": {"name": "mnli"},
            "data": {"first_rows": {"train": 40}, "max_length": 77},
            "train": {"keep_best": "accuracy", "early_stopping": {"patience": 2}},
        }
    )
    run = build_run(_of_diagnostic(mnli))
    assert (run.task.name, run.output_dir, run.data.max_length) == ("ax", "out", 77)
    assert "recipe" not in _of_diagnostic(mnli.model_copy(update={"recipe": "roberta"})), "its values are there"
    with pytest.raises(ConfigError, match="needs evaluations"):
        build_run({**plain_tree(mnli), "task": {"name": "ax"}})


def written(folder: Path, entry: Entry, which: str = "best") -> dict[str, str]:
    """Return the files of the zip that a table of one entry writes."""
    write_submissions(folder, [entry], which)
    with zipfile.ZipFile(folder / entry.model / "submission.zip") as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_ax_is_predicted_by_the_model_that_is_there_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text(f'output_dir = "{tmp_path}/t"\n[table]\ntasks = ["mnli"]\nseeds = [1]\n')
    (cell,) = cells_of(read_spec(str(tmp_path / "run.toml"), ()))
    entry = Entry("bundled", "mnli", GLUE["mnli"], (SeedResult(cell, {"accuracy": 0.8}, "", {}, {}, {}),), {}, {})

    def predict(command: Sequence[str]) -> None:
        output = Path(command[command.index("--output") + 1]) if "--output" in command else cell.folder
        (output / "submission").mkdir(parents=True, exist_ok=True)
        (output / "submission/AX.tsv").write_text((cell.folder / "model/weights").read_text())

    monkeypatch.setattr(submission, "_run", predict)
    monkeypatch.setattr(submission, "open_source", lambda data, task: None)
    for model in ("first", "second"):
        (cell.folder / "model").mkdir(parents=True)
        (cell.folder / "model/weights").write_text(model)
        assert written(tmp_path / "t", entry) == {"AX.tsv": model}
        shutil.rmtree(cell.folder)
    (cell.folder / "submission").mkdir(parents=True)
    (cell.folder / "submission/AX.tsv").touch()
    claim_run_folder(cell.folder, "identity", overwrite=True)
    assert not (cell.folder / "submission").exists(), "--overwrite removes it too"


def mrpc_entry(folder: Path, column: str, **changed: Any) -> Entry:
    """Return a column of MRPC with one run, whose test predictions are the column's name."""
    cell: Any = SimpleNamespace(seed=1, folder=folder / column, task=GLUE["mrpc"])
    (cell.folder / "submission").mkdir(parents=True)
    (cell.folder / "submission/MRPC.tsv").write_text(column)
    result = SeedResult(cell, {"accuracy": 0.5, "f1": 0.5}, "", {}, {}, {})
    return Entry("m", column, GLUE["mrpc"], (result,), {}, {}, **changed)


@pytest.mark.parametrize(
    ("columns", "start", "taken"),
    [
        (["mrpc", "mrpc-own"], "", "mrpc"),
        (["mrpc-own", "mrpc"], "", "mrpc"),
        (["mrpc-from-mnli", "mrpc-own"], "mnli", "mrpc-from-mnli"),
        (["mrpc-own"], "", "mrpc-own"),
    ],
)
def test_of_two_columns_the_one_with_the_tasks_name_is_taken(
    columns: list[str], start: str, taken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m").mkdir()
    write_submissions(tmp_path, [mrpc_entry(tmp_path, column, start=start) for column in columns], "best")
    with zipfile.ZipFile(tmp_path / "m/submission.zip") as archive:
        assert archive.read("MRPC.tsv").decode() == taken
    said = f"note: m has the columns {', '.join(columns)} of mrpc: the submission takes {taken}"
    assert (said in capsys.readouterr().err) is (len(columns) > 1)


def test_of_two_columns_of_other_names_none_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m").mkdir()
    write_submissions(tmp_path, [mrpc_entry(tmp_path, column) for column in ("one", "two")], "best")
    assert not (tmp_path / "m/submission.zip").exists()
    assert "has none of them, because none is named like the task" in capsys.readouterr().err


@pytest.mark.parametrize(("metric", "best"), [("mse", "2"), ("pearson", "1")])
def test_the_best_seed_of_an_error_is_the_one_with_the_least(tmp_path: Path, metric: str, best: str) -> None:
    task = replace(GLUE["stsb"], metrics=(metric,))
    seeds: list[SeedResult] = []
    for seed, value in ((1, 0.9), (2, 0.5), (3, 0.7)):
        cell: Any = SimpleNamespace(seed=seed, folder=tmp_path / str(seed), task=task)
        (cell.folder / "submission").mkdir(parents=True)
        (cell.folder / "submission/STS-B.tsv").write_text(str(seed))
        seeds.append(SeedResult(cell, {metric: value}, "", {}, {}, {}))
    (tmp_path / "m").mkdir()
    entry = Entry("m", "stsb", task, tuple(seeds), {}, {})
    assert written(tmp_path, entry) == {"STS-B.tsv": best}
    assert written(tmp_path, entry, "first") == {"STS-B.tsv": "1"}
