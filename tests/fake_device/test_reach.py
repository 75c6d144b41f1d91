"""Tests that every module that speaks of CUDA is listed, and that the check of what a test reaches finds a gap."""

from pathlib import Path
from typing import Any

import pytest

from tests.fake_device import reach

MODULE = """
DEVICES = ("cuda",)

def run(device):
    if device == "cuda":
        torch.cuda.synchronize()
    return device
"""


def test_every_module_that_asks_for_cuda_is_listed_once() -> None:
    assert reach.asking_modules() == reach.REACHED.keys() | reach.NOT_REACHED.keys()
    assert not reach.REACHED.keys() & reach.NOT_REACHED.keys()


def test_a_line_that_is_not_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "module.py"
    module.write_text(MODULE)
    monkeypatch.setitem(reach.REACHED, str(module), "test_of_it.py")
    names: dict[str, Any] = {}
    exec(compile(module.read_text(), str(module), "exec"), names)
    with reach.following("test_of_it.py") as lines:
        names["run"]("cpu")
    assert reach.missed(lines) == ["module.py:6: torch.cuda.synchronize()"]
