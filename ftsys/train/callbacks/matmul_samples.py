"""Measures the machine's matrix-product rate between the parts of a training: one moment may be a busy one."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftsys.train.perf.matmul_rate import matmul_rate

MOST_SAMPLES = 10
"""Evaluations after which it is measured; a run may have thousands."""


class MatmulSamples(TrainerCallback):
    """Takes a sample after each evaluation on a CPU, and one where `add` is called. Each is summed over the ranks.

    On a GPU evaluations take none: the matrices need memory that the training has, and a GPU is seldom shared.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """Measure products of matrices of `dtype`."""
        self.dtype = dtype
        self.rates: list[float] = []

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take a sample, between an evaluation and the next step. Collective, as the evaluation."""
        if args.device.type == "cpu" and len(self.rates) < MOST_SAMPLES:
            self.add(args.device)

    def add(self, device: torch.device) -> None:
        """Take a sample on all ranks. Collective."""
        self.rates.append(matmul_rate(self.dtype, device))

    @property
    def best(self) -> float:
        """Return the highest FLOP/s of all samples, which is nearest to what the machine can do."""
        return max(self.rates)


def share_of_peak(flops: float, best_rate: float) -> float | None:
    """Return the part of the measured rate that `flops` FLOP/s are; None where the rate was measured too low.

    Real work cannot exceed the rate, so a part above 1 says only that the samples fell into busy moments.
    """
    share = flops / best_rate
    return share if share <= 1 else None
