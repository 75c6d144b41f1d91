"""Measures the machine's matrix-product rate, the denominator of the utilization that a run reports."""

import time

import torch
from torch import distributed

SIZES = {"cpu": 1024, "cuda": 8192}
"""Rows of the square matrices: enough to use the whole device, few enough for its memory and the time."""
SECONDS = 0.1
"""Duration of the measurement; at least one round of products."""
ROUND = {"cpu": 1, "cuda": 8}
"""Products between two looks at the clock. A CPU without bf16 instructions needs seconds for one in bf16."""


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Return the FLOP/s of a square product of random data, summed over all ranks. Collective.

    All ranks measure at the same time. One product of N x N matrices counts 2 * N**3 FLOP.
    """
    size, of_a_round = SIZES.get(device.type, SIZES["cpu"]), ROUND.get(device.type, 1)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    left @ right  # the first product selects or compiles its kernel
    _wait(device)
    if distributed.is_initialized():
        distributed.barrier()
    start, products = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < SECONDS:
        for _ in range(of_a_round):
            left @ right
        _wait(device)
        products += of_a_round
    rate = torch.tensor([products * 2 * size**3 / elapsed], dtype=torch.float64).to(device)
    if distributed.is_initialized():
        distributed.all_reduce(rate)
    return float(rate)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
