"""Reads and writes calibration.json of a model's folder: a temperature, and thresholds for chosen classes.

    {"format": 1, "temperature": 1.3, "thresholds": {"equivalent": 0.62}, "metric": "f1"}

Whoever makes scores from logits divides the logits by `temperature` first. `thresholds` maps a label to the least score
at which it is predicted; null leaves the prediction at the label with the largest score.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from typing_extensions import TypedDict

from ftsys.errors import ConfigError
from ftsys.files.atomic import atomic_write_json
from ftsys.files.untrusted import file_bytes, json_object, typed

CALIBRATION = "calibration.json"
"""The file's name; it lies beside config.json."""


@dataclass(frozen=True)
class Calibration:
    """The content of calibration.json.

    `temperature` is finite and above 0. `thresholds` has scores from 0 to 1 by label: of a task with two classes, that
    of class 1; of a task with several labels a row, one for each label. None if there are none. `metric` is the name of
    the metric that the thresholds were chosen for, None without thresholds.
    """

    temperature: float
    thresholds: Mapping[str, float] | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a value that no calibration has."""
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature={self.temperature!r} is not a number above 0")
        for label, threshold in (self.thresholds or {}).items():
            if not 0 <= threshold <= 1:
                raise ValueError(f"thresholds: {threshold!r} of {label!r} is not a number from 0 to 1")


class _Content(TypedDict):
    format: Literal[1]
    temperature: float
    thresholds: dict[str, float] | None
    metric: str | None


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write calibration.json into a model's folder, atomically, and return its path. Raises StorageError."""
    path = folder / CALIBRATION
    atomic_write_json(path, {"format": 1, **asdict(calibration)})
    return path


def read_calibration(folder: Path) -> Calibration | None:
    """Read calibration.json of a model's folder; None if there is none. Raises ConfigError if it cannot be used."""
    path = folder / CALIBRATION
    try:
        content = typed(_Content, json_object(file_bytes(path)))
        return Calibration(content["temperature"], content["thresholds"], content["metric"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be used ({error}). Remove it, or write it again with `ftsys calibrate RUN_DIR`."
        ) from error
