"""Tests that calibration.json is read as it was written, and that wrong content is an error with the file's name."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftsys.errors import ConfigError
from ftsys.model_files.calibration import CALIBRATION, Calibration, read_calibration, write_calibration

GOOD = {"format": 1, "temperature": 1.25, "thresholds": {"yes": 0.5}, "metric": "f1"}


@pytest.mark.parametrize("value", [Calibration(1.25, {"yes": 0.5}, "f1"), Calibration(2.0)])
def test_it_is_read_as_it_was_written(value: Calibration, tmp_path: Path) -> None:
    assert write_calibration(tmp_path, value) == tmp_path / CALIBRATION
    assert read_calibration(tmp_path) == value


def test_a_folder_without_one_gives_none(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format"),
        ({"temperature": 0.0}, "temperature=0.0 is not a number above 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"thresholds": {"yes": 1.5}}, "1.5 of 'yes' is not a number from 0 to 1"),
        ({"thresholds": {"yes": None}}, "thresholds"),
        ({"metric": 3}, "metric"),
    ],
)
def test_a_wrong_value_is_an_error_with_the_files_name(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (tmp_path / CALIBRATION).write_text(json.dumps(GOOD | change))
    with pytest.raises(ConfigError, match="ftsys calibrate") as caught:
        read_calibration(tmp_path)
    assert CALIBRATION in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_an_error(key: str, tmp_path: Path) -> None:
    (tmp_path / CALIBRATION).write_text(json.dumps({name: GOOD[name] for name in GOOD if name != key}))
    with pytest.raises(ConfigError, match=key):
        read_calibration(tmp_path)
