"""Tests progress: a bar on a terminal, lines of text elsewhere, nothing on other ranks."""

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ftsys.ranks import is_main_rank
from ftsys.report.progress import Progress, SplitProgress


class Clock:
    """Seconds that a test moves on by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_elsewhere_are_first_every_five_seconds_and_last() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress("train", 100, "steps", enabled=True, stream=stream, clock=clock) as progress:
        for step in range(1, 101):
            clock.now += 0.125
            progress.update(step, loss=1 / step)
    assert stream.getvalue().splitlines() == [
        "train: 1/100 steps (1%), loss 1",
        "train: 41/100 steps (41%), 8 steps/s, 0:07 left, loss 0.0244",
        "train: 81/100 steps (81%), 8 steps/s, 0:02 left, loss 0.0123",
        "train: 100/100 steps (100%), 8 steps/s, in 0:12, loss 0.01",
    ]


def test_the_last_line_is_not_said_twice() -> None:
    stream = io.StringIO()
    with Progress("train", 1, "steps", enabled=True, stream=stream, clock=Clock()) as progress:
        progress.update(1)
    assert stream.getvalue() == "train: 1/1 steps (100%), in 0:00\n"


def test_an_unknown_total_and_large_numbers() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress("prepare", None, enabled=True, stream=stream, clock=clock) as progress:
        clock.now += 2
        progress.update(1_234_567)
    assert stream.getvalue() == "prepare: 1,234,567 rows, 617k rows/s\n"


def test_what_was_done_before_and_what_is_skipped_is_not_in_the_rate() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress("train", 200, "steps", enabled=True, initial=100, stream=stream, clock=clock) as progress:
        clock.now += 10 + 40
        progress.skip(40)
        progress.update(150)
    assert stream.getvalue() == "train: 150/200 steps (75%), 5 steps/s, 0:10 left\n"


@pytest.mark.parametrize(("rank", "speaks"), [(None, True), ("0", True), ("1", False), ("15", False)])
def test_only_rank_0_speaks(monkeypatch: pytest.MonkeyPatch, rank: str | None, speaks: bool) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_main_rank() == speaks
    for stream in (io.StringIO(), Terminal()):
        with Progress("train", 10, "steps", stream=stream) as progress:
            progress.update(5)
            progress.say("a line")
        assert bool(stream.getvalue()) == speaks


def test_long_durations() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress("train", 1000, "steps", enabled=True, stream=stream, clock=clock) as progress:
        clock.now += 100
        progress.update(1)
    assert "0.01 steps/s, 27:45:00 left" in stream.getvalue()


def test_splits_one_after_another() -> None:
    stream, clock = io.StringIO(), Clock()
    with SplitProgress("prepare", enabled=True, stream=stream, clock=clock) as progress:
        for split, rows in (("train", 2000), ("validation", 400)):
            clock.now += 2  # the first chunk of a split has taken its time when it is told of
            progress(rows // 2, rows, split)
            clock.now += 2
            progress(rows, rows, split)
    assert stream.getvalue().splitlines() == [
        "prepare train: 1,000/2,000 rows (50%), 500 rows/s, 0:02 left",
        "prepare train: 2,000/2,000 rows (100%), 500 rows/s, in 0:04",
        "prepare validation: 200/400 rows (50%), 100 rows/s, 0:02 left",
        "prepare validation: 400/400 rows (100%), 100 rows/s, in 0:04",
    ]


def test_bars_on_a_real_terminal(tmp_path: Path) -> None:
    """Two bars at once and a line between them, on a pseudo terminal of 80 columns."""
    script = tmp_path / "bars.py"
    script.write_text(
        "from ftsys.report.progress import Progress\n"
        "with Progress('train', 4, 'steps') as train:\n"
        "    train.update(2, loss=0.5)\n"
        "    with Progress('evaluate', 10, 'rows') as evaluate:\n"
        "        evaluate.update(10)\n"
        "    train.say('evaluated: f1 0.9 [not markup]')\n"
        "    train.update(4, loss=0.25)\n"
    )
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": ".", "TERM": "xterm", "COLUMNS": "80"}
    environment.pop("RANK", None)
    subprocess.run([sys.executable, script], stderr=slave, stdout=slave, env=environment, check=True)
    os.close(slave)
    shown = _everything(master).decode()
    words = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "\n")
    assert re.search(r"evaluate\b.*100%.*in 0:0", words)
    assert "evaluated: f1 0.9 [not markup]" in words
    assert re.search(r"train .*100%.*loss 0.25", words)
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0, "the cursor is shown again"
    assert max(len(line) for line in words.splitlines()) <= 80


def _everything(terminal: int) -> bytes:
    """Read to the end, which Linux reports as an error; one read returns no more than a page."""
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        pieces = []
        with contextlib.suppress(OSError):
            while piece := stream.read(65_536):
                pieces.append(piece)
        return b"".join(pieces)


def test_no_bar_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress("train", 4, "steps", enabled=True, stream=stream, clock=Clock()) as progress:
        progress.update(4)
    assert stream.getvalue() == "train: 4/4 steps (100%), in 0:00\n"
