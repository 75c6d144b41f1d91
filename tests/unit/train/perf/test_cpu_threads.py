"""Tests that a script's torch gets no more threads than its container may run, and keeps a number that was chosen."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ftsys.cpus.usable import Cores
from ftsys.train.perf import cpu_threads
from ftsys.train.perf.cpu_threads import limit_threads
from ftsys.train.trainer.arguments import TrainingArguments
from ftsys.train.trainer.trainer import Trainer

CPUS = tuple((cpu,) for cpu in range(len(os.sched_getaffinity(0)) + 1))
"""One more than there are, so that a quota of all CPUs is below the cores."""


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    before, default = torch.get_num_threads(), len(os.sched_getaffinity(0)) + 1
    torch.set_num_threads(default)
    yield default
    torch.set_num_threads(before)


def test_a_quota_lowers_torchs_own_number(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ftsys"):
        limit_threads({}, Cores(CPUS, quota=1.5))
        limit_threads({}, Cores(CPUS, quota=1.5))
    assert torch.get_num_threads() == 1
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        f"ftsys: 1 thread: the cgroup gives 1.5 of this machine's {len(CPUS)} cores"
    ]


def test_without_a_quota_nothing_changes(threads: int) -> None:
    limit_threads({}, Cores(CPUS))
    assert torch.get_num_threads() == threads


def test_a_number_that_was_chosen_is_kept(threads: int) -> None:
    limit_threads({"OMP_NUM_THREADS": str(threads)}, Cores(CPUS, quota=1.0))
    assert torch.get_num_threads() == threads
    torch.set_num_threads(threads + 1)  # neither a thread for each CPU nor one for each core
    limit_threads({}, Cores(CPUS, quota=1.0))
    assert torch.get_num_threads() == threads + 1


def test_a_scripts_trainer_lowers_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu_threads, "usable_cores", lambda: Cores(CPUS, quota=1.0))
    Trainer(torch.nn.Linear(1, 1), TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    assert torch.get_num_threads() == 1
