"""Leaves out the padding of a stock batch within the model's own forward, for data, collators and losses of any kind.

A hook turns the padded inputs of a call into packed ones. The model returns one row of logits for each sequence in the
batch's own order, and computes its loss from the same labels. So nothing outside the model sees a difference.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ftsys.data.batching.collate import PackedBatch, PaddedBatch
from ftsys.kernels.dropout import token_keys
from ftsys.models.packed import PackedView

_TAKEN = {"input_ids", "attention_mask", "token_type_ids", "labels", "num_items_in_batch", "return_dict"}
_TEXTS = ("input_ids", "token_type_ids")
_NEEDED = {"input_ids", "attention_mask"}
_RANK_STRIDE = 1 << 32

Prover = Callable[[PackedBatch, PaddedBatch], str | None]


class UnpaddedForward:
    """Unpads the calls of one model that it understands, once `prove` has found no reason against it."""

    def __init__(self, view: PackedView, rank: int, budget: int, prove: Prover) -> None:
        """Give the first batch's rows to `prove`, at most `budget` tokens. Dropout differs by `rank`."""
        self.reason: str | None = None
        """Why calls stay padded, from the first one on."""
        self._view, self._rank, self._budget, self._prove = view, rank, budget, prove
        self._proved = self._busy = False

    @contextlib.contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Unpad the calls of `model` in the body. The view is on the model for that long."""
        self._view.install()
        # Before the view's own hook, which reads the layout from the arguments.
        handle = model.register_forward_pre_hook(self._unpad, with_kwargs=True, prepend=True)
        try:
            yield
        finally:
            handle.remove()
            self._view.remove()

    def _unpad(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        given = {name: value for name, value in kwargs.items() if value is not None}
        if self._busy or args or not _is_understood(given) or torch.is_inference_mode_enabled():
            return None
        lengths_S = given["attention_mask"].sum(1, dtype=torch.int64)
        if not _is_padded_right(given["attention_mask"], lengths_S):
            return None
        if not self._proved:
            self._proved, self._busy = True, True
            try:
                self.reason = self._prove(*self._first_rows(given, lengths_S))
            finally:
                self._busy = False
        return None if self.reason is not None else ((), self._packed(model, given, lengths_S))

    def _packed(self, model: nn.Module, given: dict[str, Any], lengths_S: Tensor) -> dict[str, Any]:
        """Return the arguments of the same call, packed."""
        batch, keys_T = _pack(given, lengths_S), None
        if model.training:
            # Drawn from torch's generator, so that what restores its state restores the masks.
            seed = int(torch.randint(1 << 32, ()))
            tokens = batch.input_ids_T.numel()
            rows_T = batch.example_ids_S.repeat_interleave(lengths_S, output_size=tokens)
            keys_T = token_keys(seed, 0, rows_T + self._rank * _RANK_STRIDE, batch.position_ids_T)
        texts = (batch.input_ids_T, batch.position_ids_T, batch.token_type_ids_T)
        others = {name: value for name, value in given.items() if name in ("labels", "num_items_in_batch")}
        return self._view.inputs(*texts, batch.cu_seqlens, batch.max_seqlen, keys_T) | others

    def _first_rows(self, given: dict[str, Any], lengths_S: Tensor) -> tuple[PackedBatch, PaddedBatch]:
        """Return the first three rows, cut to the budget, and the first once more on the packed side."""
        rows = min(3, len(lengths_S))
        most_S = torch.tensor([self._budget // 2, self._budget // 3, self._budget // 6], device=lengths_S.device)
        cut_S = torch.minimum(lengths_S[:rows], most_S[:rows].clamp(min=1))
        longest = int(cut_S.max())
        mask_SL = (torch.arange(longest, device=cut_S.device) < cut_S[:, None]).long()
        texts: dict[str, Any] = {name: given[name][:rows, :longest].clone() for name in _TEXTS if name in given}
        # Each row keeps its last token, which a decoder's head may read or pass over.
        first_S = torch.arange(rows, device=cut_S.device)
        texts["input_ids"][first_S, cut_S - 1] = given["input_ids"][first_S, lengths_S[:rows] - 1]
        filled = {name: torch.cat([text, text[:1]]) for name, text in texts.items()}
        packed = _pack(filled, torch.cat([cut_S, cut_S[:1]]))
        labels_S = torch.zeros(rows, dtype=torch.long, device=cut_S.device)
        padded = PaddedBatch(texts["input_ids"], mask_SL, texts.get("token_type_ids"), labels_S, labels_S)
        return packed, padded


def _is_understood(given: dict[str, Any]) -> bool:
    if not given.keys() <= _TAKEN or not given.keys() >= _NEEDED or given.get("return_dict") is False:
        return False
    ids, mask = given["input_ids"], given["attention_mask"]
    if not isinstance(ids, Tensor) or not isinstance(mask, Tensor):
        return False
    return ids.dim() == 2 and mask.shape == ids.shape and ids.numel() > 0


def _is_padded_right(mask_SL: Tensor, lengths_S: Tensor) -> bool:
    shown_SL = torch.arange(mask_SL.shape[1], device=mask_SL.device) < lengths_S[:, None]
    return bool((mask_SL == shown_SL).all() & (lengths_S > 0).all())


def _pack(given: dict[str, Any], lengths_S: Tensor) -> PackedBatch:
    """Return the real tokens of padded rows, sequence by sequence. `example_ids_S` are the rows' numbers."""
    longest = int(lengths_S.max())
    shown_SL = torch.arange(longest, device=lengths_S.device) < lengths_S[:, None]
    index_SL = torch.arange(longest, device=lengths_S.device).expand_as(shown_SL)
    types_SL = given.get("token_type_ids")
    rows_S = torch.arange(len(lengths_S), device=lengths_S.device)
    return PackedBatch(
        given["input_ids"][:, :longest][shown_SL],
        index_SL[shown_SL],
        None if types_SL is None else types_SL[:, :longest][shown_SL],
        nn.functional.pad(lengths_S.cumsum(0), (1, 0)).int(),
        longest,
        torch.zeros_like(rows_S),
        rows_S,
    )
