"""Tests that a start that was refused before it wrote any file of a run leaves the folder free."""

from pathlib import Path

import pytest

from ftsys.errors import RunFolderError
from ftsys.run_folder.claim import claim_run_folder
from ftsys.run_folder.status import write_status


def test_a_start_that_was_refused_at_once_leaves_the_folder_free(tmp_path: Path) -> None:
    first = claim_run_folder(tmp_path, {"train.seed": 1}, overwrite=False)
    write_status(tmp_path, "refused", 2, "no such package", "train", 0, first.attempt)
    second = claim_run_folder(tmp_path, {"train.seed": 2}, overwrite=False)
    assert (second.attempt, second.first_attempt, second.finished) == (2, 2, False)
    (tmp_path / "config.toml").touch()  # a run has begun
    write_status(tmp_path, "refused", 2, "a later start was refused", "train", 0, second.attempt)
    with pytest.raises(RunFolderError, match=r"train\.seed"):
        claim_run_folder(tmp_path, {"train.seed": 3}, overwrite=False)
