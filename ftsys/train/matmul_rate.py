"""The machine's own matrix-product rate, which utilisation is a share of."""

import time

import torch
from torch import distributed

SIZE = 1024
SECONDS = 0.2


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of (1024, 1024) @ (1024, 1024) on random data, summed over all ranks, which measure at the same time."""
    left, right = (torch.randn(SIZE, SIZE, device=device).to(dtype) for _ in range(2))
    left @ right  # the first product makes the kernel
    if distributed.is_initialized():
        distributed.barrier()
    start, products = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < SECONDS:
        for _ in range(8):
            left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        products += 8
    rate = torch.tensor([products * 2 * SIZE**3 / elapsed], dtype=torch.float64).to(device)
    if distributed.is_initialized():
        distributed.all_reduce(rate)
    return float(rate)
