"""The machine's own matrix-product rate, which utilisation is a share of."""

import time

import torch
from torch import distributed

SIZES = {"cpu": 1024, "cuda": 8192}
"""Rows of the square factors: large enough to fill the device, small enough for its memory and the time."""
SECONDS = 0.2


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a square product on random data, summed over all ranks, which measure at the same time."""
    size = SIZES.get(device.type, SIZES["cpu"])
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    left @ right  # the first product makes the kernel
    _wait(device)
    if distributed.is_initialized():
        distributed.barrier()
    start, products = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < SECONDS:
        for _ in range(8):
            left @ right
        _wait(device)
        products += 8
    rate = torch.tensor([products * 2 * size**3 / elapsed], dtype=torch.float64).to(device)
    if distributed.is_initialized():
        distributed.all_reduce(rate)
    return float(rate)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
