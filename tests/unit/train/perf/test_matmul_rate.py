"""Tests the measurement of the matrix-product rate with a clock of the test's own."""

import pytest
import torch

from ftsys.train.perf import matmul_rate


def test_one_slow_product_is_enough_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 0.0, 2.0])  # the start, and the looks before the first product and after it
    monkeypatch.setattr(matmul_rate.time, "perf_counter", lambda: next(moments))
    monkeypatch.setitem(matmul_rate.SIZES, "cpu", 16)
    assert matmul_rate.matmul_rate(torch.float32, torch.device("cpu")) == 2 * 16**3 / 2.0
