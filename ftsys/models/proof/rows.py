"""Takes a few rows of the data, short enough for a proof of less than a third of a second."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ftsys.data.batching.collate import PackedBatch, PaddedBatch, filled_to, pack, pad, to_device
from ftsys.data.batching.loader import Split
from ftsys.data.store.reader import Ragged

CANDIDATES = 64
"""First rows of a split, of which the shortest, the median and the longest are taken."""
SHARES = (1 / 6, 1 / 3, 1 / 2)
"""Parts of the budget for these rows. They differ, so that rows are padded even where all are equally long."""
LEAST_TOKENS, MOST_TOKENS = 12, 256
WORK = 1_000_000_000
"""Products of a weight and a token in one forward pass on a CPU."""
FILLERS = 3
"""Tokens of the filler sequence, which shows a model that mixes sequences."""


def token_budget(config: Any, device: torch.device) -> int:
    """Return the tokens of a proof: fewer for a large model on a CPU, whose passes take longer."""
    layers, width = getattr(config, "num_hidden_layers", 12), getattr(config, "hidden_size", 768)
    weights = 12 * layers * width**2  # those of products with each token, in a layer like BERT's
    return MOST_TOKENS if device.type != "cpu" else max(LEAST_TOKENS, min(MOST_TOKENS, WORK // weights))


def proof_batches(
    split: Split, budget: int, device: torch.device, pad_id: int | None
) -> tuple[PackedBatch, PaddedBatch]:
    """Return the same rows packed, with a filler at the end, and padded. They have `budget` tokens or less.

    `pad_id` is the padding token that the model's head knows; None where it knows none.
    """
    facts, rows = split.tokenizer, _cut(split, budget)
    filled = filled_to(rows, facts.pad_id, len(rows.tokens) + FILLERS, FILLERS)
    packed = pack(filled._replace(labels=filled.labels.astype(rows.labels.dtype)), facts.emits_token_types)
    packed = replace(packed, max_seqlen=int(filled.lengths.max()))
    padded = pad(rows, facts.emits_token_types, facts.pad_id if pad_id is None else pad_id)
    return to_device(packed, device), to_device(padded, device)


def _cut(split: Split, budget: int) -> Ragged:
    """Return up to three rows, each cut to its share of `budget` tokens: the first ones and its last.

    A decoder's head may read the last token, or pass over it where it is the padding token.
    """
    known = np.arange(min(CANDIDATES, len(split)))
    by_length = known[np.argsort(split.lengths[known], kind="stable")]
    chosen = by_length[np.unique([0, len(known) // 2, len(known) - 1])]
    rows = split.gather(chosen)
    most = np.array([max(1, int(budget * share)) for share in SHARES[-len(chosen) :]], dtype=np.int32)
    kept = rows.positions < most.repeat(rows.lengths)
    lengths = np.minimum(rows.lengths, most)
    bounds = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
    tokens = rows.tokens[kept]
    tokens[bounds[1:] - 1] = rows.tokens[rows.cu_seqlens[1:] - 1]
    return rows._replace(
        tokens=tokens,
        lengths=lengths,
        first_lengths=np.minimum(rows.first_lengths, lengths),
        positions=rows.positions[kept],
        cu_seqlens=bounds,
    )


def real_rows(packed: PackedBatch, padded: PaddedBatch) -> tuple[int, torch.Tensor]:
    """Return the number of real tokens of `packed`, and the index of each in the flat rows of `padded`."""
    index = padded.attention_mask_SL.flatten().nonzero()[:, 0]
    return len(index), index
