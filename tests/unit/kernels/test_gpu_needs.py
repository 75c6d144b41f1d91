"""Tests the reasons why a machine cannot run the kernels of a GPU, and that all ranks draw the same conclusion."""

import importlib.util
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ftsys.errors import ConfigError
from ftsys.kernels import gpu_needs, library_attention, select
from ftsys.kernels.gpu_needs import why_not_build, why_not_triton
from ftsys.kernels.select import choose_kernel, why_not_fast


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    caches = (gpu_needs.why_not_triton, library_attention.why_not_varlen)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Simulate a machine with an A100, Triton, a C compiler and Python's header files."""
    (tmp_path / "Python.h").touch()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "triton" else found(name))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(sysconfig, "get_paths", lambda scheme=None: {"include": str(tmp_path)})
    monkeypatch.setattr(gpu_needs.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(gpu_needs, "_is_built", lambda: False)
    monkeypatch.setattr(library_attention, "why_not_varlen", lambda: None)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    return monkeypatch


def test_a_machine_that_has_everything(ampere: pytest.MonkeyPatch) -> None:
    assert why_not_triton() is None
    assert choose_kernel("auto", "cuda") == "triton"


def test_a_cache_that_others_may_write_to_is_refused_before_it_is_read(
    ampere: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ampere.setattr(gpu_needs, "_is_built", lambda: pytest.fail("code of the cache was run"))
    (tmp_path / "Python.h").unlink()
    with tempfile.TemporaryDirectory() as shared:  # pytest's own folder lets nobody else in
        Path(shared).chmod(0o777)
        ampere.setenv("TRITON_CACHE_DIR", shared)
        with pytest.raises(ConfigError, match=r"other users may write to it .mode 777.*set TRITON_CACHE_DIR to a"):
            why_not_triton()


def test_no_compiler(ampere: pytest.MonkeyPatch) -> None:
    ampere.setattr(gpu_needs.shutil, "which", lambda name: None)
    assert why_not_triton() == "Triton needs a C compiler, and there is neither gcc nor clang"
    assert choose_kernel("auto", "cuda") == "varlen"
    with pytest.raises(ConfigError, match=r"engine\.kernels='triton' is not available here: Triton needs a C compiler"):
        choose_kernel("triton", "cuda")
    ampere.setenv("CC", "icx")
    assert why_not_build() == "Triton needs a C compiler, and CC='icx' is no program"


def test_no_header_files(ampere: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "Python.h").unlink()
    assert why_not_triton() == f"Triton needs Python's header files, and {tmp_path}/Python.h does not exist"


def test_a_module_that_was_built_before_needs_no_compiler(ampere: pytest.MonkeyPatch) -> None:
    ampere.setattr(gpu_needs.shutil, "which", lambda name: None)
    ampere.setattr(gpu_needs, "_is_built", lambda: True)
    assert why_not_triton() is None


def test_a_gpu_below_ampere(ampere: pytest.MonkeyPatch) -> None:
    ampere.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    ampere.setattr(gpu_needs, "_is_built", lambda: True)
    ampere.setattr(library_attention, "why_not_varlen", gpu_needs.why_not_capability)
    assert why_not_fast("cuda") == "the GPU has compute capability 7.5, below 8.0"
    assert choose_kernel("auto", "cuda") == "padded"
    with pytest.raises(ConfigError, match=r"'triton' is not available here: the GPU has compute capability 7\.5"):
        choose_kernel("triton", "cuda")


def of_two_ranks(patch: pytest.MonkeyPatch, other: str | None) -> None:
    """Simulate rank 0 of two, whose other rank cannot run Triton for the reason `other`."""
    patch.setattr(select, "_elsewhere", {})
    patch.setattr(select, "world_size", lambda: 2)

    def gather(mine: dict[str, Any]) -> list[dict[str, Any]]:
        return [mine, {**mine, "triton": other}]

    patch.setattr(select, "all_gather_json", gather)


def test_no_rank_uses_a_kernel_that_another_one_cannot_run(ampere: pytest.MonkeyPatch) -> None:
    of_two_ranks(ampere, "Triton is not installed")
    assert choose_kernel("auto", "cuda") == "varlen"
    assert why_not_fast("cuda") == "on rank 1, Triton is not installed"
    states = torch.empty(1, 1, 16)
    call = select._Call((states, states, states), None, select.NO_DROPOUT, select.PLAIN)  # type: ignore[arg-type]
    assert select._why_not("triton", "cuda") is not None
    assert not select._takes_triton(call)  # nor is it the next kernel of a chain
    with pytest.raises(ConfigError, match="'triton' is not available here: on rank 1, Triton is not installed"):
        choose_kernel("triton", "cuda")


def test_ranks_that_can_all_run_it_use_it(ampere: pytest.MonkeyPatch) -> None:
    of_two_ranks(ampere, None)
    assert choose_kernel("auto", "cuda") == "triton"
    assert why_not_fast("cuda") is None
