"""Measures the highest rate of matrix products in this process: torch's own, and with weights in oneDNN's order."""

import time

import torch
from torch import nn

from ftsys.models.onednn.inference import prepack
from ftsys.train.perf.product_rates import measure

ROWS, COLUMNS = 4096, 768
WINDOWS, WINDOW_SECONDS = 4, 0.05
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def fastest_products() -> dict[str, float]:
    """Return FLOP/s by precision; other processes disturb single samples, so the best of several calls counts."""
    torchs = measure()
    return {name: max(getattr(torchs, name), _prepacked(dtype)) for name, dtype in DTYPES.items()}


def _prepacked(dtype: torch.dtype) -> float:
    layer, rows = nn.Linear(COLUMNS, COLUMNS).to(dtype), torch.randn(ROWS, COLUMNS).to(dtype)
    prepack(layer)
    with torch.no_grad():
        layer(rows)  # the first product makes its kernel
        return max(_of_a_window(layer, rows) for _ in range(WINDOWS))


def _of_a_window(layer: nn.Module, rows: torch.Tensor) -> float:
    start, products = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < WINDOW_SECONDS or not products:
        layer(rows)
        products += 1
    return products * 2 * ROWS * COLUMNS * COLUMNS / elapsed
