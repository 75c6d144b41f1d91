"""metrics.jsonl: a line a logged step or evaluation, appended by rank 0 of each life of a run.

Every line has `step`, `epoch`, `time` (seconds since 1970) and `attempt`; a training line `loss` and other
figures, an evaluation line `split` and its metrics. The first line of a life also has `resumed_at`, the step it went on
from, so that readers can tell which lines of former lives it made void. NaN and infinities are null.
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftsys.files import json_safe, storage_errors

_LOG = logging.getLogger(__name__)

_SUMMARY = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")
"""What transformers logs once at the end of training: a summary that results.json has, no step's figures."""


def lines_from_logs(logs: Mapping[str, Any], splits: Sequence[str]) -> list[dict[str, Any]]:
    """What a Trainer logs at once, as training and evaluation lines without step, epoch and time.

    Keys of an evaluation are `eval_NAME`, or `eval_SPLIT_NAME` where there are several `splits`; without a split's name
    they are of the first one. Longer names of splits win over their own beginnings.
    """
    found: dict[str | None, dict[str, Any]] = {}
    for key, value in logs.items():
        if key in (*_SUMMARY, "epoch", "step", "total_flos"):
            continue
        split, name = _split_of(key, splits)
        found.setdefault(split, {} if split is None else {"split": split})[name] = value
    return list(found.values())


def _split_of(key: str, splits: Sequence[str]) -> tuple[str | None, str]:
    """("validation", "f1") of "eval_f1" or "eval_validation_f1"; (None, key) of a training figure."""
    if not key.startswith("eval_"):
        return None, key
    name = key.removeprefix("eval_")
    for split in sorted(splits, key=len, reverse=True):
        if name.startswith(f"{split}_"):
            return split, name.removeprefix(f"{split}_")
    return (splits[0] if splits else "validation"), name


class MetricsWriter:
    """Appends lines to a metrics.jsonl for one life. Opens nothing before the first line."""

    def __init__(self, path: Path | str, attempt: int, resumed_at: int = 0) -> None:
        """`resumed_at` is the number of optimizer steps that were done when this life began."""
        self.path, self.attempt = Path(path), attempt
        self._first: dict[str, int] = {"resumed_at": resumed_at}

    def write(self, line: Mapping[str, Any], step: int, epoch: float | None) -> None:
        """Append one line, whole, so that a crash leaves at most one torn line. Raises StorageError."""
        head = {"step": step, "epoch": epoch, "time": round(time.time(), 3), "attempt": self.attempt}
        text = json.dumps(json_safe({**head, **self._first, **line}), ensure_ascii=False, allow_nan=False)
        with storage_errors(self.path), self.path.open("ab") as stream:
            # A former life may have died within its last line: end that one, so that it spoils itself alone.
            start = b"\n" if self._first and _ends_torn(self.path) else b""
            stream.write(start + text.encode() + b"\n")
        self._first = {}


def read_metrics(path: Path | str, first_attempt: int = 1) -> list[dict[str, Any]]:
    """The lines that count, in order of step: none of lives before `first_attempt`, none that a later life made void.

    A life that went on from step R computed all steps after R anew, so lines of former lives beyond R are dropped, and
    those for the same step and split as a later life's. A torn line is skipped and told of in the log.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = [line for line in _parse(path) if line["attempt"] >= first_attempt]
    resumed: dict[int, int] = {}
    for line in lines:
        resumed.setdefault(line["attempt"], line.get("resumed_at", line["step"] - 1))
    kept: dict[tuple[int, str | None], dict[str, Any]] = {}
    for line in sorted(lines, key=lambda line: line["attempt"]):  # stable: file order within a life
        if all(line["step"] <= step for attempt, step in resumed.items() if attempt > line["attempt"]):
            key = (line["step"], line.get("split"))
            kept[key] = {**kept.get(key, {}), **line} if _same_life(kept.get(key), line) else line
    return sorted(kept.values(), key=lambda line: line["step"])


def _same_life(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    """Lines of one life for one step and split belong together: a callback may log figures of its own."""
    return one is not None and one["attempt"] == other["attempt"]


def _parse(path: Path) -> Iterable[dict[str, Any]]:
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            line = json.loads(text)
            yield {**line, "step": int(line["step"]), "attempt": int(line["attempt"])}
        except (ValueError, KeyError, TypeError):
            if text.strip():
                _LOG.warning("%s: line %d is torn and left out", path, number)


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        if size == 0:
            return False
        stream.seek(size - 1)
        return stream.read(1) != b"\n"
