"""Hashes the dropout keys of a batch once, for all sites of the model together.

Which sites there are is learned: a site that a model meets for the first time is hashed by itself, and together with
the others from the next batch on. Masks depend on the keys alone, so they are the same either way.
"""

import torch
from torch import Tensor

from ftsys.kernels.dropout import Windows, head_keys, site_offset, windows
from ftsys.kernels.triton_layers.choice import in_triton

TOKENS = 0
"""In place of a number of heads: one key per token."""


class KnownSites:
    """The dropout sites of one model, by heads per token; `TOKENS` for those with one key per token."""

    def __init__(self) -> None:
        self.by_heads: dict[int, list[int]] = {}
        self._offsets: dict[tuple[torch.device, tuple[int, ...]], Tensor] = {}

    def add(self, heads: int, site: int) -> None:
        """Have later batches hash this site with the others."""
        self.by_heads.setdefault(heads, []).append(site)

    def offsets(self, heads: int, device: torch.device) -> Tensor:
        """Return what each site adds to a key, int64 (N,); sent to the device once, and kept: CUDA graphs read it."""
        sites = tuple(self.by_heads[heads])
        if (device, sites) not in self._offsets:
            self._offsets[device, sites] = torch.tensor([site_offset(site) for site in sites], device=device)
        return self._offsets[device, sites]


class BatchWindows:
    """The windows of a batch's tokens at each site."""

    def __init__(self, keys_T: Tensor, known: KnownSites, kernel: str = "padded") -> None:
        """`keys_T` is int64 (T,); `known` is shared by all batches of a model; `kernel` is that of `PackedLayout`."""
        self._keys_T, self._known, self._kernel = keys_T, known, kernel
        self._found: dict[tuple[int, int], Windows] | None = None

    def of_tokens(self, site: int) -> Windows:
        """Return the windows of each token, int32 (T,)."""
        return self._of(TOKENS, site)

    def of_heads(self, site: int, heads: int) -> Windows:
        """Return the windows of each token and head, int32 (T, H)."""
        return self._of(heads, site)

    def _of(self, heads: int, site: int) -> Windows:
        if self._found is None:
            self._found = self._hash_known() if self._known.by_heads else {}
        if (heads, site) not in self._found:
            self._found[heads, site] = windows(self._keys(heads) + site_offset(site))
            if site not in self._known.by_heads.get(heads, ()):
                self._known.add(heads, site)
        return self._found[heads, site]

    def _keys(self, heads: int) -> Tensor:
        return self._keys_T if heads == TOKENS else head_keys(self._keys_T, heads)

    def _hash_known(self) -> dict[tuple[int, int], Windows]:
        if in_triton(self._kernel, device=self._keys_T.device.type):
            return self._hash_in_triton()
        kinds = [(heads, self._keys(heads)) for heads in self._known.by_heads]
        shifted = [keys + self._offsets_for(heads, keys) for heads, keys in kinds]
        first, second = windows(torch.cat([each.flatten() for each in shifted]))
        sizes = [each.numel() for each in shifted]
        parts = zip(kinds, shifted, first.split(sizes), second.split(sizes), strict=True)
        found: dict[tuple[int, int], Windows] = {}
        for (heads, _), each, one, other in parts:
            starts = zip(one.view(each.shape), other.view(each.shape), strict=True)
            found |= {(heads, site): pair for site, pair in zip(self._known.by_heads[heads], starts, strict=True)}
        return found

    def _hash_in_triton(self) -> dict[tuple[int, int], Windows]:
        from ftsys.kernels.triton_layers.keys import head_windows

        found: dict[tuple[int, int], Windows] = {}
        for heads, sites in self._known.by_heads.items():
            if heads != TOKENS:  # Triton's other kernels hash a token's key themselves
                offsets_N = self._known.offsets(heads, self._keys_T.device)
                pairs = zip(*head_windows(self._keys_T, offsets_N, heads), strict=True)
                found |= {(heads, site): pair for site, pair in zip(sites, pairs, strict=True)}
        return found

    def _offsets_for(self, heads: int, keys: Tensor) -> Tensor:
        return self._known.offsets(heads, keys.device).view(-1, *[1] * keys.dim())
