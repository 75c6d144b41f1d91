"""Tests the format check of a zip for the GLUE server, one mistake at a time."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ftsys.config.schema import DataSection
from ftsys.errors import DataError
from ftsys.run_folder import glue_submission
from ftsys.run_folder.glue_submission import FILES, TestFile, check_submission
from ftsys.run_folder.predictions import SUBMISSIONS
from ftsys.tasks import GLUE
from ftsys.train.verify import verify

Edit = Callable[[dict[str, str]], None]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Right files of three rows each."""
    small = {name: TestFile(3, file.labels) for name, file in FILES.items()}
    monkeypatch.setattr(glue_submission, "FILES", small)
    values = {name: "2.5" if file.labels is None else file.labels[1] for name, file in small.items()}
    return {name: "index\tprediction\n" + "".join(f"{row}\t{values[name]}\n" for row in range(3)) for name in small}


def write(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "submission.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_a_right_zip_passes(tmp_path: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, files)
    assert check_submission(path) == []
    assert verify(str(path)) == 0
    assert "whole" in capsys.readouterr().out


def replace(name: str, old: str, new: str) -> Edit:
    return lambda files: files.update({name: files[name].replace(old, new)})


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda files: files.pop("AX.tsv"), "AX.tsv is missing: the server demands all 11 files"),
        (lambda files: files.update({"CoLa.tsv": ""}), "CoLa.tsv is no file of a submission"),
        (replace("CoLA.tsv", "index\t", "id\t"), "CoLA.tsv: its header is 'id prediction'"),
        (replace("CoLA.tsv", "2\t1\n", ""), "CoLA.tsv: it has 2 rows, the test set has 3"),
        (replace("RTE.tsv", "1\tnot_entailment", "1\t1"), "RTE.tsv: row 2 predicts '1', which is not one of entail"),
        (replace("RTE.tsv", "not_entailment", "0"), "(and 2 more rows)"),
        (
            replace("STS-B.tsv", "1\t2.5", "1\t5.1"),
            "STS-B.tsv: row 2 predicts '5.1', which is not a number from 0 to 5",
        ),
        (replace("STS-B.tsv", "1\t2.5", "1\tnan"), "STS-B.tsv: row 2 predicts 'nan'"),
        (replace("MNLI-mm.tsv", "1\tneutral", "2\tneutral"), "MNLI-mm.tsv: row 2 has the index '2', not 1"),
        (replace("MNLI-m.tsv", "1\tneutral", "1\tneutral\tx"), "MNLI-m.tsv: row 2 has 3 fields, not 2"),
        (lambda files: files.update({"WNLI.tsv": ""}), "WNLI.tsv: its header is ''"),
    ],
)
def test_each_mistake_is_said(tmp_path: Path, files: dict[str, str], edit: Edit, told: str) -> None:
    edit(files)
    mistakes = check_submission(write(tmp_path, files))
    assert any(told in mistake for mistake in mistakes), mistakes
    assert verify(str(tmp_path / "submission.zip")) == 2


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        check_submission(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(DataError, match="cannot be read as a zip"):
        check_submission(tmp_path / "text.zip")


def test_every_file_that_a_run_writes_is_known() -> None:
    assert set(SUBMISSIONS.values()) == set(FILES)


def test_row_counts_are_those_of_the_official_files(glue_folder: Path) -> None:
    from ftsys.data.sources.glue_files import tasks_in
    from ftsys.data.sources.source import open_source

    for task in tasks_in(glue_folder):
        source = open_source(DataSection(source=str(glue_folder)), GLUE[task.name])
        for split, rows in source.items():
            if split in task.test_splits:
                counted = sum(len(batch.first) for batch in rows.read(4096))
                assert counted == FILES[SUBMISSIONS[task.name, split]].rows, task.name
