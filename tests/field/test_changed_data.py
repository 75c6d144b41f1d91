"""Tests data that changes under the same name: a run does not go on with other rows than those that it began with."""

from pathlib import Path

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
