"""Tests a schedule whose state is not finite before its first evaluation."""

import shutil
from pathlib import Path

from tests.end_to_end.commands import ftsys, read_json
from tests.field.conftest import write_own_run


def test_a_schedule_that_follows_a_metric_goes_on_before_its_first_evaluation(tmp_path: Path, tiny_model: Path) -> None:
    """Its best value is infinity until then."""
    rows = ["no", "yes"] * 8
    run_file = write_own_run(tmp_path, tiny_model, {"train": rows, "validation": rows[:4]})
    words = ("--trainer.lr_scheduler_type", "reduce_lr_on_plateau", "--batch.global_size", "4", "--train.epochs", "1")
    saving = ("--train.save_every", "1", "--train.save_keep", "9")
    whole = ftsys("train", run_file, *words, *saving, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    expected = read_json(tmp_path / "run/results.json")["metrics"]["validation"]
    (tmp_path / "run/results.json").unlink()  # as if it had been killed after its first step
    for later in sorted((tmp_path / "run/checkpoints").iterdir())[1:]:
        shutil.rmtree(later)
    resumed = ftsys("train", run_file, *words, *saving, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "step-000001" in resumed.stderr
    found = read_json(tmp_path / "run/results.json")["metrics"]["validation"]
    assert found["loss"] == expected["loss"]
