"""What attention within a sequence may be beyond "every token sees every other": masks and relative positions.

A family of models says it in a `Pattern`; each kernel of `kernels.choice` either computes it or is not chosen.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class RelativeTerms:
    """What a score of query i and key j gains by their distance, in tables over the offset o = i - j + L - 1.

    L is the layout's longest sequence, so a table has O = 2L - 1 entries and i = j is entry L - 1. Any may be absent:
    score = scale * (query_i . key_j + query_i . keys_HOK[o] + queries_HOK[o] . key_j) + bias_HO[o].
    The first is T5's bias (Raffel et al. 2020), which MPNet has too; the others are DeBERTa's content to position and
    position to content (He et al. 2021).
    """

    bias_HO: torch.Tensor | None = None
    keys_HOK: torch.Tensor | None = None
    queries_HOK: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which keys of its own sequence a query sees: all, without further terms, unless a field says otherwise."""

    causal: bool = False
    """A query sees no later key."""
    window: int | None = None
    """A query sees keys less than this many tokens away, on both sides unless `causal`. transformers' sense of it."""
    relative: RelativeTerms | None = None

    def hidden_LL(self, length: int, device: torch.device) -> torch.Tensor | None:
        """True where query (row) does not see key (column) among `length` tokens; None where all are seen."""
        windowed = self.window is not None and self.window < length
        if not (self.causal or windowed):
            return None
        places = torch.arange(length, device=device)
        ahead_LL = places - places[:, None]
        hidden_LL = ahead_LL > 0 if self.causal else torch.zeros_like(ahead_LL, dtype=torch.bool)
        return hidden_LL | (ahead_LL.abs() >= self.window) if windowed else hidden_LL


PLAIN = Pattern()
"""Every token sees every token of its sequence: BERT and all that are built like it."""
