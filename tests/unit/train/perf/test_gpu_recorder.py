"""Tests which warnings the CUDA graph recorder takes for a wait, with a double of torch's debug mode."""

import warnings

import pytest
import torch

from ftsys.train.perf.cuda_graphs import GpuRecorder


@pytest.fixture(autouse=True)
def debug_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warn on the first call as torch does, whatever the mode."""

    def set_mode(mode: object) -> None:
        warnings.warn(
            "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations",
            stacklevel=1,
        )

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)


def test_torchs_own_warning_about_the_mode_is_no_wait() -> None:
    results = torch.zeros(()), torch.zeros(2)
    found, reason = object.__new__(GpuRecorder).watched(lambda: results)
    assert found is results
    assert reason is None


def test_a_wait_of_the_pass_is_found() -> None:
    def passes() -> tuple[torch.Tensor, torch.Tensor]:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return torch.zeros(()), torch.zeros(2)

    _, reason = object.__new__(GpuRecorder).watched(passes)
    assert reason is not None
    assert "waits for the GPU in" in reason
