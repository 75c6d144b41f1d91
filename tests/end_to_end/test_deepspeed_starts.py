"""Tests DeepSpeed's start in a process of its own: the time-out of its groups, and that it compiles nothing."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.end_to_end.commands import call, write_run_file

GROUP = """
import sys
from ftsys import TrainingArguments
zero = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 0}}
arguments = TrainingArguments(output_dir=sys.argv[1], deepspeed=zero, use_cpu=True, ddp_timeout=1234)
import deepspeed.constants
import torch
print(deepspeed.constants.default_pg_timeout.total_seconds())
torch.distributed.destroy_process_group()
"""

ALONE = """
import sys
from ftsys import TrainingArguments
zero = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 0}}
arguments = TrainingArguments(output_dir=sys.argv[1], deepspeed=zero, use_cpu=True)
import psutil
from torch import distributed
found = psutil.Process().net_connections(kind="tcp")
print(distributed.get_world_size(), *{each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN})
distributed.destroy_process_group()
"""

START = """
from ftsys.train.deepspeed_setup import prepare_deepspeed
prepare_deepspeed()
import deepspeed
from torch import distributed
deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
distributed.destroy_process_group()
print("started")
"""


def started(program: str, cache: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program as the only rank, with an own cache of compiled extensions."""
    world = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**os.environ, **world, "TORCH_EXTENSIONS_DIR": str(cache), **more},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_groups_that_deepspeed_makes_have_the_arguments_time_out(tmp_path: Path) -> None:
    done = started(GROUP, tmp_path, str(tmp_path))
    assert done.stdout.split() == [str(21 * 60.0)], done.stderr


def test_a_process_without_a_launcher_listens_on_the_loopback_alone(tmp_path: Path) -> None:
    done = call(sys.executable, "-c", ALONE, tmp_path, cwd=tmp_path)
    assert done.stdout == "1 127.0.0.1\n", done.stderr


def test_a_run_refuses_a_folder_of_ops_that_others_may_write_to(tmp_path: Path, tiny_model: Path) -> None:
    """One line, and no traceback."""
    run_file = write_run_file(tmp_path, model=tiny_model)
    words: list[str | Path] = [sys.executable, "-m", "ftsys", "train", run_file, "--engine.backend", "deepspeed"]
    with tempfile.TemporaryDirectory() as shared:  # pytest's own folder lets nobody else in
        Path(shared).chmod(0o777)
        done = call(*words, cwd=tmp_path, TORCH_EXTENSIONS_DIR=shared, DS_ACCELERATOR="cpu")
    said = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert said.startswith(
        f"error: '{shared}' holds code that would be run, but other users may write to it (mode 777)"
    )
    assert said.endswith("set TORCH_EXTENSIONS_DIR to a folder of your own.")


def test_starting_compiles_nothing_and_says_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "deepspeed_shm_comm" / "lock"
    lock.parent.mkdir()
    lock.touch()
    done = started(START, tmp_path, PATH="")
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    assert "accelerator" not in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deepspeed_shm_comm", "lock"]
