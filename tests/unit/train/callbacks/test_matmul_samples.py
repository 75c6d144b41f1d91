"""Tests that a share of the machine's peak rests on the best of several moments and is never above 1."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ftsys.train.callbacks import matmul_samples
from ftsys.train.callbacks.matmul_samples import MOST_SAMPLES, MatmulSamples, share_of_peak


def evaluated(samples: MatmulSamples, device: str) -> None:
    args: Any = SimpleNamespace(device=torch.device(device))
    nothing: Any = None
    samples.on_evaluate(args, nothing, nothing)


def test_the_best_moment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([1e11, 4e11, 2e11])
    monkeypatch.setattr(matmul_samples, "matmul_rate", lambda dtype, device: next(rates))
    samples = MatmulSamples(torch.float32)
    evaluated(samples, "cpu")
    evaluated(samples, "cpu")
    samples.add(torch.device("cpu"))
    assert (samples.best, len(samples.rates)) == (4e11, 3)


def test_evaluations_take_few_samples_and_none_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul_samples, "matmul_rate", lambda dtype, device: 1e11)
    samples = MatmulSamples(torch.float32)
    evaluated(samples, "cuda")
    assert samples.rates == []
    for _ in range(MOST_SAMPLES + 5):
        evaluated(samples, "cpu")
    assert len(samples.rates) == MOST_SAMPLES


def test_a_share_above_one_is_not_written() -> None:
    assert share_of_peak(3e11, 4e11) == 0.75
    assert share_of_peak(9e11, 4e11) is None
