"""Tests metrics.jsonl with several attempts, torn lines and several splits."""

import logging
from pathlib import Path

import pytest

from ftsys.errors import StorageError
from ftsys.run_folder import metrics_log
from ftsys.run_folder.metrics_log import MetricsWriter, lines_from_logs, read_metrics

MNLI = ("validation_matched", "validation_mismatched")


def test_several_evaluation_splits() -> None:
    logs = {"eval_validation_matched_accuracy": 0.5, "eval_validation_mismatched_accuracy": 0.6, "epoch": 1.0}
    assert lines_from_logs(logs, MNLI) == [
        {"split": "validation_matched", "accuracy": 0.5},
        {"split": "validation_mismatched", "accuracy": 0.6},
    ]


def test_a_split_whose_name_begins_another_one() -> None:
    logs = {"eval_test_loss": 1.0, "eval_test_hard_loss": 2.0}
    assert lines_from_logs(logs, ["test", "test_hard"]) == [
        {"split": "test", "loss": 1.0},
        {"split": "test_hard", "loss": 2.0},
    ]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="the disk is full"):
        MetricsWriter(tmp_path / "metrics.jsonl", 1).write({"loss": 1.0}, 1, 0.1)


def _life(path: Path, attempt: int, resumed_at: int, steps: list[int], split: str | None = None) -> None:
    writer = MetricsWriter(path, attempt, resumed_at)
    for step in steps:
        writer.write({"loss": attempt + step / 100, **({"split": split} if split else {})}, step, step / 10)


def _kept(path: Path, first_attempt: int = 1) -> list[tuple[int, int]]:
    return [(line["step"], line["attempt"]) for line in read_metrics(path, first_attempt)]


def test_a_later_life_makes_void_what_it_computed_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    _life(path, 1, 0, [10, 20, 30, 35])
    _life(path, 2, 20, [25, 30])
    assert _kept(path) == [(10, 1), (20, 1), (25, 2), (30, 2)], "35 and 30 of the first attempt are gone, 20 counts"
    _life(path, 3, 0, [10])
    assert _kept(path) == [(10, 3)], "an attempt from the beginning leaves nothing of the earlier ones"


def test_lines_of_a_cut_off_life_that_come_late_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    old = MetricsWriter(path, 1)
    old.write({"loss": 1.0}, 10, 1.0)
    _life(path, 2, 10, [20])
    old.write({"loss": 1.0}, 20, 2.0)
    old.write({"loss": 1.0}, 30, 3.0)
    assert _kept(path) == [(10, 1), (20, 2)]


@pytest.mark.timeout(60)
def test_thousands_of_lives_are_read_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"step": number, "attempt": number, "resumed_at": number} for number in range(1, 100_001)]
    monkeypatch.setattr(metrics_log, "_parse", lambda path: lines)
    assert len(read_metrics(tmp_path)) == 100_000


def test_a_life_that_died_before_its_first_line_made_nothing_void(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    _life(path, 1, 0, [10, 20, 30])
    _life(path, 3, 20, [30])
    assert _kept(path) == [(10, 1), (20, 1), (30, 3)]


def test_the_same_step_again_counts_once_for_each_split(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for split in (*MNLI, None):
        _life(path, 1, 0, [10], split)
    _life(path, 2, 10, [10], MNLI[0])
    found = {(line.get("split"), line["attempt"]) for line in read_metrics(path)}
    assert found == {(MNLI[0], 2), (MNLI[1], 1), (None, 1)}


def test_lives_before_overwriting_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    _life(path, 1, 0, [10])
    assert _kept(path, first_attempt=2) == [], "the new attempt has written nothing yet"
    _life(path, 2, 0, [20])
    assert _kept(path, first_attempt=2) == [(20, 2)]


def test_a_torn_line_spoils_itself_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    _life(path, 1, 0, [10, 20])
    path.write_bytes(path.read_bytes()[:-20])  # the machine went down while the line of step 20 was written
    _life(path, 2, 10, [20, 30])
    with caplog.at_level(logging.WARNING):
        assert _kept(path) == [(10, 1), (20, 2), (30, 2)]
    assert "metrics.jsonl: line 2 is torn and left out" in caplog.text
