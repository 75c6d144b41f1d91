"""Writes and reads metrics.jsonl: one line for each logged step or evaluation, appended by rank 0 of each attempt.

Every line has `step`, `epoch`, `time` (seconds since 1970) and `attempt`. A training line also has `loss` and other
values, an evaluation line `split` and its metrics. The first line of an attempt also has `resumed_at`, the step from
which the attempt went on: a reader needs it to drop those lines of earlier attempts that this attempt has replaced.
NaN and infinities are null.
"""

import json
import logging
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from ftsys.errors import DamagedError
from ftsys.files.json_safe import json_safe
from ftsys.files.storage_errors import storage_errors
from ftsys.files.untrusted import MOST_BYTES, json_object, open_regular, typed

_LOG = logging.getLogger(__name__)

_SUMMARY = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")
"""Keys that transformers logs once at the end of training: a summary, which belongs to results.json, not to a step."""


def lines_from_logs(logs: Mapping[str, Any], splits: Sequence[str]) -> list[dict[str, Any]]:
    """Turn one log call of the Trainer into training and evaluation lines, without step, epoch and time.

    Keys of an evaluation are `eval_NAME`, or `eval_SPLIT_NAME` if there are several `splits`; a key without a split's
    name belongs to the first split. If one split's name begins with another's, the longer name is tried first.
    """
    found: dict[str | None, dict[str, Any]] = {}
    for key, value in logs.items():
        if key in (*_SUMMARY, "epoch", "step", "total_flos"):
            continue
        split, name = _split_of(key, splits)
        found.setdefault(split, {} if split is None else {"split": split})[name] = value
    return list(found.values())


def _split_of(key: str, splits: Sequence[str]) -> tuple[str | None, str]:
    """Return ("validation", "f1") for "eval_f1" or "eval_validation_f1", and (None, key) for a training value."""
    if not key.startswith("eval_"):
        return None, key
    name = key.removeprefix("eval_")
    for split in sorted(splits, key=len, reverse=True):
        if name.startswith(f"{split}_"):
            return split, name.removeprefix(f"{split}_")
    return (splits[0] if splits else "validation"), name


class MetricsWriter:
    """Appends the lines of one attempt to a metrics.jsonl file. Opens no file before the first line."""

    def __init__(self, path: Path | str, attempt: int, resumed_at: int = 0) -> None:
        """Set the file and the attempt. `resumed_at`: optimizer steps that were done when this attempt began."""
        self.path, self.attempt = Path(path), attempt
        self._first: dict[str, int] = {"resumed_at": resumed_at}

    def write(self, line: Mapping[str, Any], step: int, epoch: float | None) -> None:
        """Append one line in one write, so that a crash leaves at most one incomplete line. Raises StorageError."""
        head = {"step": step, "epoch": epoch, "time": round(time.time(), 3), "attempt": self.attempt}
        text = json.dumps(json_safe({**head, **self._first, **line}), ensure_ascii=False, allow_nan=False)
        with storage_errors(self.path), self.path.open("ab") as stream:
            # An earlier attempt may have died while it wrote its last line: end that line, so that no other is lost.
            start = b"\n" if self._first and _ends_incomplete(self.path) else b""
            stream.write(start + text.encode() + b"\n")
        self._first = {}


def read_metrics(path: Path | str, first_attempt: int = 1) -> list[dict[str, Any]]:
    """Read the valid lines in the order of their steps; [] if there is no such file.

    Lines of attempts before `first_attempt` are dropped. An attempt that resumed from step R has computed all steps
    after R again, so lines of earlier attempts beyond R are dropped too, and those for the same step and split as a
    later attempt's line. An incomplete line is skipped with a warning in the log. Raises DamagedError for a pipe or a
    device.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = [line for line in _parse(path) if line["attempt"] >= first_attempt]
    resumed: dict[int, int] = {}
    for line in lines:
        resumed.setdefault(line["attempt"], line.get("resumed_at", line["step"] - 1))
    attempts = sorted(resumed)
    of_later = [*accumulate((resumed[attempt] for attempt in reversed(attempts)), min)]
    lowest = of_later[::-1]  # of each attempt and all later ones
    kept: dict[tuple[int, str | None], dict[str, Any]] = {}
    for line in sorted(lines, key=lambda line: line["attempt"]):  # stable: file order within an attempt
        later = bisect_right(attempts, line["attempt"])
        if later == len(attempts) or line["step"] <= lowest[later]:
            key = (line["step"], line.get("split"))
            kept[key] = {**kept.get(key, {}), **line} if _same_attempt(kept.get(key), line) else line
    return sorted(kept.values(), key=lambda line: line["step"])


def _same_attempt(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    """Return True for lines of one attempt. Those of one step and split are merged: callbacks log further values."""
    return one is not None and one["attempt"] == other["attempt"]


def _parse(path: Path) -> Iterable[dict[str, Any]]:
    try:
        stream = open_regular(path)
    except ValueError as error:
        raise DamagedError(f"{str(path)!r} cannot be read ({error}): remove it.") from error
    with stream:
        for number, text in enumerate(iter(lambda: stream.readline(MOST_BYTES), b""), start=1):
            try:
                line = json_object(text)
                typed(int, line.get("resumed_at", 0))
                if not isinstance(line.get("split"), str | None):
                    raise ValueError("split is no text")
                yield {**line, "step": typed(int, line["step"]), "attempt": typed(int, line["attempt"])}
            except (ValueError, KeyError):
                if text.strip():
                    _LOG.warning("%s: line %d is torn and left out", path, number)


def _ends_incomplete(path: Path) -> bool:
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        if size == 0:
            return False
        stream.seek(size - 1)
        return stream.read(1) != b"\n"
