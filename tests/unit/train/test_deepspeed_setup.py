"""DeepSpeed starts without a compiler, without waiting for the dead, and without talking over the results."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import pytest
from torch import nn

from ftsys.errors import LaunchError
from ftsys.train.deepspeed_setup import CPU_ADAM_OP, compile_locks, prepare_deepspeed, whole_weights


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of compiled extensions."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    return tmp_path


def lock(cache: Path, op: str) -> Path:
    path = cache / op / "lock"
    path.parent.mkdir()
    path.touch()
    return path


def test_a_lock_of_the_dead_is_named(cache: Path) -> None:
    path = lock(cache, CPU_ADAM_OP)
    with pytest.raises(LaunchError, match="not on this machine any more") as caught:
        prepare_deepspeed([CPU_ADAM_OP])
    assert f"rm {path}" in str(caught.value)
    path.unlink()
    prepare_deepspeed([CPU_ADAM_OP])


def test_a_lock_that_nobody_needs_stops_nobody(cache: Path) -> None:
    lock(cache, "deepspeed_shm_comm")
    prepare_deepspeed([CPU_ADAM_OP])
    assert [(found.op, found.holder) for found in compile_locks()] == [("deepspeed_shm_comm", None)]


def test_a_process_at_work_is_waited_for_aloud(cache: Path) -> None:
    said: list[str] = []
    with lock(cache, CPU_ADAM_OP).open():
        prepare_deepspeed([CPU_ADAM_OP], said.append)
    assert len(said) == 1
    assert f"process {os.getpid()} is compiling 'cpu_adam'" in said[0]


def test_locks_are_found_in_the_default_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "torch_extensions" / "py311_cpu" / CPU_ADAM_OP / "lock"
    path.parent.mkdir(parents=True)
    path.touch()
    assert [found.path for found in compile_locks()] == [path]


def test_the_weights_that_zero_3_has_spread_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[Any] = []

    def gathering(weights: list[Any]) -> Any:
        gathered.extend(weights)
        return nullcontext()

    monkeypatch.setattr(deepspeed.zero, "GatheredParameters", gathering)
    model: Any = nn.Linear(2, 2)
    with whole_weights(model):
        assert gathered == []
    model.weight.ds_id = 0
    with whole_weights(model):
        assert [id(weight) for weight in gathered] == [id(model.weight)]
