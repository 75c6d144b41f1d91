"""Plans steps in the stock Trainer's order of examples, for data sets that the user passes to the Trainer."""

import numpy as np
import torch

from ftsys.data.batching.plan import EpochPlan


def stock_plan(rows: int, seed: int, epoch: int, global_size: int, *, shuffled: bool, dropped_below: int) -> EpochPlan:
    """Plan one epoch of `rows` examples in steps of `global_size`.

    The order is that of accelerate's SeedableRandomSampler, a torch permutation with the seed `seed + epoch`, or the
    data's own order if not `shuffled`. With `dropped_below` above 0, an incomplete round of that many examples
    (batch x ranks) at the end is left out, as `dataloader_drop_last` does. The stock Trainer repeats the first examples
    if the last step does not divide evenly among the ranks; here each example comes once.
    """
    ids = np.arange(rows)
    if shuffled:
        ids = torch.randperm(rows, generator=torch.Generator().manual_seed(seed + epoch)).numpy()
    if dropped_below:
        ids = ids[: rows // dropped_below * dropped_below]
    return EpochPlan(ids, np.append(np.arange(0, len(ids), global_size), len(ids)))
