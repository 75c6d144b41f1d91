"""Relative terms of padded attention scores by matrix products and shifted views, without gathering one by one."""

import torch

from ftsys.kernels.pattern import RelativeTerms


def padded_relative_scores(
    query_SHLK: torch.Tensor, key_SGLK: torch.Tensor, terms: RelativeTerms, scale: float
) -> torch.Tensor:
    """What `terms` adds to padded scores: (S, H, L, L), or (H, L, L) where no content enters; in the queries' dtype.

    `query_SHLK` is already multiplied by `scale`; `key_SGLK` is not.
    """
    heads, longest = query_SHLK.shape[1:3]
    total = query_SHLK.new_zeros(())
    if terms.bias_HO is not None:
        # Row i of the windows starts at entry i, which is the offset of the last key: hence the flip.
        total = total + terms.bias_HO.to(total.dtype).unfold(1, longest, 1).flip(2)
    if terms.keys_HOK is not None:
        total = total + _shift(_products(query_SHLK, terms.keys_HOK.flip(1)))
    if terms.queries_HOK is not None:
        key_SHLK = key_SGLK.repeat_interleave(heads // key_SGLK.shape[1], 1)
        total = total + _shift(_products(key_SHLK, terms.queries_HOK * scale)).transpose(2, 3)
    return total


def _products(rows_SHLK: torch.Tensor, table_HOK: torch.Tensor) -> torch.Tensor:
    """Every row with every entry of its head's table, (S, H, L, O): one matrix product a head for all sequences."""
    sequences, heads, longest, _ = rows_SHLK.shape
    rows_HRK = rows_SHLK.transpose(0, 1).flatten(1, 2)
    products_HRO = rows_HRK @ table_HOK.transpose(1, 2)
    return products_HRO.view(heads, sequences, longest, -1).transpose(0, 1)


def _shift(rows_SHLO: torch.Tensor) -> torch.Tensor:
    """(S, H, L, 2L - 1) to (S, H, L, L): row a keeps entries L - 1 - a to 2L - 2 - a.

    In memory each row's part starts one entry short of a whole row after the one before, so that cutting the rows
    anew, one entry shorter, lays the parts below one another (the shift of Dai et al. 2019, Transformer-XL).
    """
    longest, offsets = rows_SHLO.shape[2:]
    if longest == 1:
        return rows_SHLO
    flat = rows_SHLO.flatten(2)[..., longest - 1 : longest - 1 + longest * (offsets - 1)]
    return flat.unflatten(2, (longest, offsets - 1))[..., :longest]
