"""Tests rank 0's log on a full disk: the terminal still gets everything."""

import os
from pathlib import Path

import pytest

from launcher.agent.rank import OutputStream, open_log
from launcher.agent.terminal import PlainText


def test_a_full_disk_does_not_keep_output_from_the_terminal() -> None:
    (source, output), (shown, target) = os.pipe(), os.pipe()
    os.write(output, b"error: the disk is full\n")
    os.close(output)
    log = open_log(Path("/dev/full"))
    stream = OutputStream(source, target, False, PlainText())
    assert stream.copy(log)
    assert os.read(shown, 100) == b"error: the disk is full\n"
    assert not stream.copy(log)
    stream.finish(log)
    for handle in (source, shown, target, log):
        os.close(handle)


def test_a_log_that_cannot_be_opened(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = open_log(tmp_path / "none/rank-0.log")
    assert os.write(log, b"text") == 4
    os.close(log)
    assert "rank-0.log: cannot be written (No such file or directory), so there is no log" in capfd.readouterr().err
