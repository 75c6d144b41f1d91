"""Tests that the journal of a sweep survives a full disk, and that a wrong one ends in one message."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ftsys.errors import ConfigError
from ftsys.sweep.settings import read_sweep
from ftsys.sweep.study import JOURNAL, SharedStudy

pytest.importorskip("optuna")


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], SharedStudy]:
    """Return the function that opens one study as a new process would."""
    run_file = tmp_path / "run.toml"
    run_file.write_text(f'output_dir = "{tmp_path}/out"\n[task]\nname = "mrpc"\n')
    sweep = read_sweep(run_file, (), ("train.learning_rate=log:1e-5..1e-4",), tmp_path / "sweep")
    return lambda: SharedStudy(sweep)


@pytest.mark.parametrize("cut", [1, 20])
def test_a_line_that_a_full_disk_has_torn_is_replaced_by_the_next_one(
    opened: Callable[[], SharedStudy], tmp_path: Path, cut: int
) -> None:
    first = opened().next_trial()
    assert first is not None
    path = tmp_path / "sweep" / JOURNAL
    path.write_bytes(path.read_bytes()[:-cut])
    shared = opened()
    shared.end(first, "complete", 0.5)
    shared.study.set_user_attr("more", 1)
    assert [json.loads(line)["op_code"] for line in path.read_text().splitlines()][-1] == 2
    assert [trial.number for trial in opened().trials()] == [0]


CREATE = '{"op_code": 0, "worker_id": "w", "study_name": "sweep", "directions": [2]}\n'
ATTRIBUTE = '{"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {%s}}\n'
TRIAL = '{"op_code": 4, "worker_id": "w", "study_id": 0, "datetime_start": null, %s}\n'
WRONG = {
    "deep": "[" * 100_000 + "\n",
    "an unknown operation": '{"op_code": 99, "worker_id": "w"}\n',
    "no attribute": CREATE + ATTRIBUTE % "",
    "a space of text": CREATE + ATTRIBUTE % '"space": "x"',
    "a value of text": CREATE + TRIAL % '"state": 1, "value": "x"',
    "no value": CREATE + TRIAL % '"state": 1',
    "several values": CREATE + TRIAL % '"state": 1, "values": [1, 2]',
    "an evaluation of text": CREATE + TRIAL % '"intermediate_values": {"1": "x"}',
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_a_wrong_journal_is_one_error(opened: Callable[[], SharedStudy], tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / JOURNAL).write_text(content)
    with pytest.raises(ConfigError, match=r"study.journal' is not the journal of a sweep, or is damaged .*: use"):
        opened()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "link", "dangling link"])
def test_only_a_regular_file_is_a_journal(opened: Callable[[], SharedStudy], tmp_path: Path, kind: str) -> None:
    (tmp_path / "sweep").mkdir()
    path, other = tmp_path / "sweep" / JOURNAL, tmp_path / "other"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(other)
    if kind == "link":
        other.write_text("")
    with pytest.raises(ConfigError, match=r"study.journal' is no regular file: use another --output, or remove it"):
        opened()
    assert not other.exists() or not other.read_text()
