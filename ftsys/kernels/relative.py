"""Computes relative terms of padded attention scores by matrix products and shifted views, without a gather."""

import torch

from ftsys.kernels.pattern import RelativeTerms


def padded_relative_scores(
    query_SHLK: torch.Tensor, key_SGLK: torch.Tensor, terms: RelativeTerms, scale: float
) -> torch.Tensor:
    """Return the sum of `terms` for padded scores in the queries' dtype: (S, H, L, L), or (H, L, L) for a bias only.

    `query_SHLK` is already multiplied by `scale`; `key_SGLK` is not. `RelativeTerms` has the formula.
    """
    heads, longest = query_SHLK.shape[1:3]
    total = query_SHLK.new_zeros(())
    if terms.bias_HO is not None:
        # Row i of the unfolded windows starts at entry i, the offset of the last key, so the keys are flipped.
        total = total + terms.bias_HO.to(total.dtype).unfold(1, longest, 1).flip(2)
    if terms.keys_HOK is not None:
        total = total + _shift(_products(query_SHLK, terms.keys_HOK.flip(1)))
    if terms.queries_HOK is not None:
        key_SHLK = key_SGLK.repeat_interleave(heads // key_SGLK.shape[1], 1)
        total = total + _shift(_products(key_SHLK, terms.queries_HOK * scale)).transpose(2, 3)
    return total


def _products(rows_SHLK: torch.Tensor, table_HOK: torch.Tensor) -> torch.Tensor:
    """Return the product of each row with each entry of its head's table, (S, H, L, O): one matrix product per head."""
    sequences, heads, longest, _ = rows_SHLK.shape
    rows_HRK = rows_SHLK.transpose(0, 1).flatten(1, 2)
    products_HRO = rows_HRK @ table_HOK.transpose(1, 2)
    return products_HRO.view(heads, sequences, longest, -1).transpose(0, 1)


def _shift(rows_SHLO: torch.Tensor) -> torch.Tensor:
    """Map (S, H, L, 2L - 1) to (S, H, L, L): row a keeps entries L - 1 - a to 2L - 2 - a.

    In memory, the entries kept of row a + 1 start 2L - 2 entries after those of row a. So a view with rows of 2L - 2
    entries puts them in the same columns (the shift of Dai et al., 2019, Transformer-XL).
    """
    longest, offsets = rows_SHLO.shape[2:]
    if longest == 1:
        return rows_SHLO
    flat = rows_SHLO.flatten(2)[..., longest - 1 : longest - 1 + longest * (offsets - 1)]
    return flat.unflatten(2, (longest, offsets - 1))[..., :longest]
