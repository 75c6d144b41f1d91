"""Reads the state of a run from its folder at one moment: step, speed, loss, last metrics, time left, silence."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftsys.files.untrusted import file_bytes, json_object, open_regular
from ftsys.run_folder.layout import METRICS_LOG, PLAN
from ftsys.run_folder.status import read_status_after_crash

SILENT_SECONDS = 60.0
"""A running run writes its status every 5 seconds; after this long without a word, a rank may hang."""

_TAIL_BYTES = 1 << 16
_RATE_LINES = 12
_NO_METRIC = frozenset(
    "step epoch time attempt split resumed_at examples loss runtime samples_per_second steps_per_second "
    "jit_compilation_time".split()
)


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment. What is not known is None; `seconds_left` and `silent` are in seconds.

    `silent` is the time since the run last wrote a file; None for a run that has ended.
    """

    name: str
    state: str = "not started"
    phase: str = ""
    reason: str = ""
    step: int = 0
    total: int | None = None
    loss: float | None = None
    tokens_per_s: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    silent: float | None = None

    @property
    def ended(self) -> bool:
        """True if the newest attempt of the run has ended."""
        return self.state not in ("running", "not started")

    @property
    def stalled(self) -> bool:
        """True if the run should be running and has written nothing for SILENT_SECONDS."""
        return self.silent is not None and self.silent > SILENT_SECONDS


def take_snapshot(folder: Path, name: str, now: float | None = None) -> Snapshot:
    """Read a run folder. A file that is missing, damaged or half-written leaves its values out; never an error."""
    now = time.time() if now is None else now
    status = read_status_after_crash(folder)
    steps, evaluations = _last_lines(folder / METRICS_LOG)
    last: Mapping[str, Any] = steps[-1] if steps else {}
    state = str(status.get("state", "not started"))
    step = max(_whole(status.get("step")) or 0, _whole(last.get("step")) or 0)
    total = _whole(_json(folder / PLAN).get("total_steps"))
    running = state == "running"
    return Snapshot(
        name=name,
        state=state,
        phase=str(status.get("phase", "")),
        reason=str(status.get("reason", "")),
        step=step,
        total=total,
        loss=_number(last.get("loss")),
        tokens_per_s=_number(last.get("real_tokens_per_s")),
        metrics=_metrics(evaluations),
        seconds_left=_seconds_left(steps, step, total) if running else None,
        silent=_silence(now, status, [*steps, *evaluations]) if running else None,
    )


def _last_lines(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the last training lines and evaluations of the newest attempt in the end of the log."""
    try:
        with open_regular(path) as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _TAIL_BYTES))
            texts = stream.read().splitlines()[1 if size > _TAIL_BYTES else 0 :]
    except (OSError, ValueError):
        return [], []
    lines = [line for text in texts if (line := _line(text))]
    newest = max((_whole(line.get("attempt")) or 0 for line in lines), default=0)
    steps = [line for line in lines if "split" not in line and line.get("attempt") == newest]
    return steps, [line for line in lines if "split" in line]


def _line(text: bytes) -> dict[str, Any] | None:
    try:
        return json_object(text)
    except ValueError:
        return None  # the line is being written, or a crash tore it


def _json(path: Path) -> dict[str, Any]:
    try:
        return json_object(file_bytes(path))
    except (OSError, ValueError):
        return {}


def _metrics(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the metrics of the last evaluation; of several splits, the first one that was evaluated at that step."""
    if not evaluations:
        return {}
    first = next(line for line in evaluations if line.get("step") == evaluations[-1].get("step"))
    found = {name: _number(value) for name, value in first.items() if name not in _NO_METRIC}
    return {name: value for name, value in found.items() if value is not None}


def _seconds_left(steps: Sequence[Mapping[str, Any]], step: int, total: int | None) -> float | None:
    """Return the time of the remaining steps at the rate of the last log lines, evaluations included."""
    recent = [(_number(line.get("time")), _whole(line.get("step"))) for line in steps[-_RATE_LINES:]]
    known = [(at, done) for at, done in recent if at is not None and done is not None]
    if total is None or len(known) < 2 or known[-1][1] <= known[0][1]:
        return None
    (start, first), (end, last) = known[0], known[-1]
    return max(0, total - step) * (end - start) / (last - first)


def _silence(now: float, status: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> float | None:
    times = [_number(one.get("time")) for one in (status, *lines[-1:])]
    return max(0.0, now - max((at for at in times if at is not None), default=now))


def _number(value: object) -> float | None:
    """Return a finite number as a float; an integer in a damaged file may be too large for one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62 else None
