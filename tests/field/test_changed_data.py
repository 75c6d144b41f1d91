"""Tests data that changes under the same name: a run does not go on with other rows than those that it began with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ftsys.config import load_run, resolve_task
from ftsys.data.prepare import ensure_store
from ftsys.data.sources.rows import Rows
from ftsys.data.sources.text_files import TableFile
from ftsys.errors import DataError
from tests.end_to_end.commands import ftsys, read_json
from tests.field.conftest import write_own_run, write_rows

ROWS = ["no", "yes"] * 8


def test_a_run_does_not_go_on_with_other_rows(tmp_path: Path, tiny_model: Path) -> None:
    run_file = write_own_run(tmp_path, tiny_model, {"train": ROWS, "validation": ROWS[:4]})
    saving = ("--train.save_every", "2")
    assert ftsys("train", run_file, *saving, cwd=tmp_path).returncode == 0
    (tmp_path / "run/results.json").unlink()  # as if it had been killed at the end
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    write_rows(tmp_path / "train.csv", ROWS[1:])
    refused = ftsys("train", run_file, *saving, cwd=tmp_path)
    assert refused.returncode == 77
    assert "are of a run on other data: the source or the tokenizer has changed" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before
    write_rows(tmp_path / "train.csv", ROWS)
    again = ftsys("train", run_file, *saving, cwd=tmp_path)
    assert again.returncode == 0
    assert "resuming from" in again.stderr
    (tmp_path / "run/results.json").unlink()
    write_rows(tmp_path / "train.csv", ROWS[1:])
    assert ftsys("train", run_file, *saving, "--overwrite", cwd=tmp_path).returncode == 0
    assert read_json(tmp_path / "run/results.json")["metrics"]["validation"]["examples"] == 4


@pytest.fixture
def trained(tmp_path: Path, tiny_model: Path) -> Path:
    """A run file, and beside it a run that was killed after its last checkpoint; then the rows were changed."""
    run_file = write_own_run(tmp_path, tiny_model, {"train": ROWS, "validation": ROWS[:4]})
    assert ftsys("train", run_file, "--train.save_every", "2", cwd=tmp_path).returncode == 0
    (tmp_path / "run/results.json").unlink()
    write_rows(tmp_path / "train.csv", ROWS[1:])
    return run_file


def test_a_named_checkpoint_of_other_rows_is_refused(trained: Path) -> None:
    named = trained.parent / "run/checkpoints/step-000006"
    refused = ftsys("train", trained, "--train.resume", named, cwd=trained.parent)
    assert refused.returncode == 77, refused.stderr
    assert f"train.resume='{named}' is of a run on other data" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_start_from_the_beginning_that_saved_nothing_does_not_hide_other_rows(trained: Path) -> None:
    words = ("--train.resume", "never", "--train.save_every", "never")
    assert ftsys("train", trained, *words, cwd=trained.parent).returncode == 0
    (trained.parent / "run/results.json").unlink()
    refused = ftsys("train", trained, cwd=trained.parent)
    assert refused.returncode == 77, refused.stderr
    assert "are of a run on other data" in refused.stderr


def test_overwrite_removes_no_checkpoint_that_it_is_to_resume(trained: Path) -> None:
    write_rows(trained.parent / "train.csv", ROWS)
    named = trained.parent / "run/checkpoints/step-000006"
    before = sorted(path.name for path in (trained.parent / "run").rglob("*"))
    refused = ftsys("train", trained, "--overwrite", "--train.resume", named, cwd=trained.parent)
    assert sorted(path.name for path in (trained.parent / "run").rglob("*")) == before, refused.stderr
    assert refused.returncode == 2
    assert "is one of the checkpoints in" in refused.stderr
    moved = named.rename(trained.parent / named.name)
    again = ftsys("train", trained, "--overwrite", "--train.resume", moved, cwd=trained.parent)
    assert again.returncode == 0, again.stderr


def test_a_finished_run_names_the_files_that_are_newer_than_its_results(tmp_path: Path, tiny_model: Path) -> None:
    run_file = write_own_run(tmp_path, tiny_model, {"train": ROWS, "validation": ROWS[:4]})
    assert ftsys("train", run_file, cwd=tmp_path).returncode == 0
    assert "newer" not in ftsys("train", run_file, cwd=tmp_path).stdout
    write_rows(tmp_path / "train.csv", ROWS[1:])
    again = ftsys("train", run_file, cwd=tmp_path)
    assert (again.returncode, "is finished" in again.stdout) == (0, True)
    said = " ".join(again.stdout.split())  # a long path is on two lines
    assert (said.count("is newer than these results"), "train.csv is newer than" in said) == (1, True)
    (tmp_path / "train.csv").unlink()
    without = ftsys("train", run_file, cwd=tmp_path)
    assert (without.returncode, "newer" in without.stdout) == (0, False), without.stderr


@pytest.mark.parametrize("rows", [[*ROWS, "no"], ROWS[1:], ROWS[::-1]])
def test_a_file_that_changes_while_it_is_read_makes_no_store(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, rows: list[str]
) -> None:
    run_file, stores = write_own_run(tmp_path, tiny_model, {"train": ROWS, "validation": ROWS[:4]}), tmp_path / "stores"
    run, read = load_run(run_file, ["--data.store", str(stores)]), TableFile.read

    def slowly(file: TableFile, rows_per_batch: int) -> Iterator[Rows]:
        for batch in read(file, rows_per_batch):
            yield batch
            write_rows(tmp_path / "train.csv", rows)

    monkeypatch.setattr(TableFile, "read", slowly)
    with pytest.raises(DataError, match=r"train\.csv changed while it was read: start again"):
        ensure_store(run, resolve_task(run))
    assert list(stores.iterdir()) == []
    monkeypatch.undo()
    assert ensure_store(run, resolve_task(run)).splits["train"].rows == len(rows)
