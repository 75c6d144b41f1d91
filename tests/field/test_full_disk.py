"""Tests full disks: found before the start where the run's size is known, else one clear error with nothing lost."""

import errno
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ftsys.errors import ConfigError, StorageError
from ftsys.train import preflight
from ftsys.train.checkpoint.files import read_safetensors, replace_safetensors
from tests.end_to_end.commands import SECONDS, environment, ftsys
from tests.field.conftest import write_own_run

BOTH = ["no", "yes"]
MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB, where this machine lets root make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(disk)], check=False, capture_output=True
    )
    if made.returncode != 0:
        pytest.skip(f"no small disk can be made here: {made.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(MIB // 16))


@pytest.mark.parametrize(
    ("free", "more", "refused", "noted"),
    [
        (13_000_000, [], True, False),
        (15_000_000, [], False, True),
        (90_000_000, [], False, False),
        (2_500_000, ["--train.save_every", "never"], False, False),
        (1_500_000, ["--train.save_every", "never"], True, False),
        (7_000_000, ["--trainer.optim", "sgd"], False, True),
    ],
)
def test_space_is_compared_with_what_the_run_writes(
    free: int,
    more: list[str],
    refused: bool,
    noted: bool,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tiny model has half a million parameters: 2 MB of weights, 6 MB a checkpoint."""
    from ftsys.config import load_run

    run = load_run(write_own_run(tmp_path, tiny_model, {"train": BOTH, "validation": BOTH}), more)
    monkeypatch.setattr(preflight, "free_bytes", lambda folder: free)
    if refused:
        with pytest.raises(ConfigError, match="of disk space are free, and the run writes at least"):
            list(preflight._disk_space(run))
    else:
        assert bool(list(preflight._disk_space(run))) == noted


def test_a_run_that_cannot_fit_is_refused_before_its_folder_is_made(small_disk: Path, tiny_model: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(20 * MIB))
    (small_disk / "work").mkdir()
    run_file = write_own_run(small_disk / "work", tiny_model, {"train": BOTH * 4, "validation": BOTH})
    done = ftsys("train", run_file, cwd=small_disk)
    assert (done.returncode, "of disk space are free" in done.stderr) == (2, True), done.stderr
    assert not (small_disk / "work/run").exists()


def test_a_disk_that_fills_while_training_loses_nothing(small_disk: Path, tiny_model: Path) -> None:
    run_file = write_own_run(small_disk, tiny_model, {"train": BOTH * 4, "validation": BOTH * 600})
    words = ("--train.epochs", "1", "--train.save_keep", "1")
    process = subprocess.Popen(
        ["python", "-m", "ftsys", "train", str(run_file), *words],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list((small_disk / "run/checkpoints").glob("step-*/manifest.json")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.005)
    fill(small_disk / "filler")
    _, said = process.communicate(timeout=SECONDS)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (process.returncode, len(errors)) == (1, 1), said
    assert "the disk is full" in errors[0]
    assert "Traceback" not in said
    assert not list((small_disk / "run").rglob("*.partial"))
    (small_disk / "filler").unlink()
    again = ftsys("train", run_file, *words, cwd=small_disk)
    assert again.returncode == 0, again.stderr
    assert json.loads((small_disk / "run/results.json").read_text())["steps"] == 2
    assert (small_disk / "run/model/model.safetensors").stat().st_size > MIB


def test_weights_that_cannot_be_written_leave_the_former_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    path = tmp_path / "model.safetensors"
    replace_safetensors(path, {"weight": torch.ones(3)})
    former = path.read_bytes()

    def full(stream: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_safetensors(path, {"weight": torch.zeros(3)})
    assert path.read_bytes() == former
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]
    assert StorageError.exit_status == 1


def test_a_file_that_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "model.safetensors"
    path.with_name(".model.safetensors.partial").write_bytes(b"half")
    for value in (1.0, 2.0):
        replace_safetensors(path, {"weight": torch.full((3,), value)})
        assert read_safetensors(path)["weight"].tolist() == [value] * 3
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]
