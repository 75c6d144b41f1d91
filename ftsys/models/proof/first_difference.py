"""Names the layer at which packed and padded results part: its output is the first that differs.

A second pass with a hook on each module, made only where a proof has failed.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ftsys.data.batching.collate import PackedBatch, PaddedBatch
from ftsys.models.inputs import model_inputs
from ftsys.models.layout_slot import first_tokens, last_tokens
from ftsys.models.packed import PackedView
from ftsys.models.proof.alterations import layer_name
from ftsys.models.proof.rows import real_rows
from ftsys.models.proof.tolerance import Tolerance, differ

_Outputs = dict[str, list[Tensor]]


def first_difference(
    model: nn.Module, view: PackedView, packed: PackedBatch, padded: PaddedBatch, tolerance: Tolerance
) -> str | None:
    """Return the first layer whose rows differ, as a reason; None where each that can be compared agrees."""
    stock, ours = _outputs(model, model_inputs(padded, None)), _outputs(model, model_inputs(packed, view))
    pick = _Pick(view, model.config, packed, padded)
    for name, outputs in stock.items():
        for one, other in zip(outputs, ours.get(name, []), strict=False):
            rows = pick.matching(one, other)
            if rows is not None and differ(*rows, tolerance.values):
                layer = layer_name(name, model.get_submodule(name))
                return f"{layer} has other results for packed rows than for padded ones"
    return None


def loud_layer(model: nn.Module, inputs: dict[str, Any], failures: tuple[type[Exception], ...]) -> str:
    """Return the name of the innermost module within which a forward pass raises one of `failures`."""
    entered: list[str] = []

    def hooks(name: str, module: nn.Module) -> Iterator[Any]:
        yield module.register_forward_pre_hook(lambda *ignored: entered.append(name))
        yield module.register_forward_hook(lambda *ignored: entered.pop() and None)

    with _hooked(model, hooks), contextlib.suppress(*failures), torch.no_grad():
        model(**inputs)
    name = entered[-1] if entered else ""
    return layer_name(name, model.get_submodule(name))


def _outputs(model: nn.Module, inputs: dict[str, Any]) -> _Outputs:
    """Return each module's outputs, one for each call, in the order in which first calls end."""
    found: _Outputs = {}

    def hooks(name: str, module: nn.Module) -> Iterator[Any]:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            tensor = _tensor(output)
            if tensor is not None:
                found.setdefault(name, []).append(tensor)

        yield module.register_forward_hook(keep)

    with _hooked(model, hooks), torch.no_grad():
        model(**inputs)
    return found


@contextlib.contextmanager
def _hooked(model: nn.Module, hooks: Callable[[str, nn.Module], Iterator[Any]]) -> Iterator[None]:
    handles = [handle for name, module in model.named_modules() if name for handle in hooks(name, module)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensor(output: Any) -> Tensor | None:
    """Return the hidden states of a module's output: itself, `last_hidden_state`, or the first of a tuple."""
    output = getattr(output, "last_hidden_state", output)
    output = output[0] if isinstance(output, tuple | list) and output else output
    return output if isinstance(output, Tensor) and output.is_floating_point() and output.dim() > 1 else None


class _Pick:
    """Picks the rows of two outputs of one module that belong to the same tokens, or to the same sequences."""

    def __init__(self, view: PackedView, config: Any, packed: PackedBatch, padded: PaddedBatch) -> None:
        self.tokens, self.index_T = real_rows(packed, padded)
        self.sequences, self.longest = padded.input_ids_SL.shape
        self.computed, self.lengths_S = packed.input_ids_T.numel(), padded.attention_mask_SL.sum(1)
        self.pooling = view.family.pooling_of(config)

    def matching(self, stock: Tensor, ours: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return rows (T, D) or (S, D) of both; None for outputs whose rows are neither."""
        stock, ours = stock.flatten(0, -2), ours.flatten(0, -2)
        whole = len(stock) == self.sequences * self.longest
        if len(ours) == self.computed and whole:
            return self._alike(stock[self.index_T], ours[: self.tokens])
        if len(ours) != self.sequences + 1 or not (whole or len(stock) == self.sequences):
            return None
        pooled = self._pooled(stock) if whole else stock
        return None if pooled is None else self._alike(pooled, ours[: self.sequences])

    def _pooled(self, rows: Tensor) -> Tensor | None:
        starts_S = torch.arange(self.sequences, device=rows.device) * self.longest
        if self.pooling is first_tokens:
            return rows[starts_S]
        return rows[starts_S + self.lengths_S - 1] if self.pooling is last_tokens else None

    @staticmethod
    def _alike(stock: Tensor, ours: Tensor) -> tuple[Tensor, Tensor] | None:
        return (stock, ours) if stock.shape == ours.shape else None
