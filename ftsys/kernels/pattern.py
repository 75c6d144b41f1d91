"""Describes masks and relative positions of attention within a sequence.

A model family gives a `Pattern`. `ftsys.kernels.select` uses a kernel only if it supports the pattern.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class RelativeTerms:
    """Holds tables that add to the score of query i and key j by their offset o = i - j + L - 1.

    L is the layout's longest sequence, so a table has O = 2L - 1 entries, and i = j is entry L - 1. The score is
    scale * (query_i . key_j + query_i . keys_HOK[o] + queries_HOK[o] . key_j) + bias_HO[o]; a table that is None adds
    nothing. `bias_HO` is T5's relative bias (Raffel et al., 2020), which MPNet also has. `keys_HOK` and `queries_HOK`
    are DeBERTa's content-to-position and position-to-content terms (He et al., 2021).
    """

    bias_HO: torch.Tensor | None = None
    keys_HOK: torch.Tensor | None = None
    queries_HOK: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Pattern:
    """Describes which keys of its sequence a query sees, and relative terms; the default is all keys without terms."""

    causal: bool = False
    """True if a query sees no later key."""
    window: int | None = None
    """Distance in tokens below which a query sees a key, on both sides unless `causal`; as in transformers."""
    relative: RelativeTerms | None = None

    def hidden_LL(self, length: int, device: torch.device) -> torch.Tensor | None:
        """Return a bool mask (L, L), True if a query (row) does not see a key (column); None if all are seen."""
        windowed = self.window is not None and self.window < length
        if not (self.causal or windowed):
            return None
        positions = torch.arange(length, device=device)
        ahead_LL = positions - positions[:, None]
        hidden_LL = ahead_LL > 0 if self.causal else torch.zeros_like(ahead_LL, dtype=torch.bool)
        return hidden_LL | (ahead_LL.abs() >= self.window) if windowed else hidden_LL


PLAIN = Pattern()
"""Pattern of BERT and similar encoders: every token sees all tokens of its sequence."""
