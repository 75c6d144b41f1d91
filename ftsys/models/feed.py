"""How a batch enters a model, whichever layout it has."""

from typing import Any

from ftsys.data.collate import Batch, PackedBatch
from ftsys.models.packed import PackedView


def model_inputs(batch: Batch, view: PackedView | None) -> dict[str, Any]:
    """Keyword arguments of the Hugging Face model's `forward` for `batch`, without labels."""
    if isinstance(batch, PackedBatch):
        if view is None:
            raise TypeError("a packed batch was made for a model without a packed view")
        return view.inputs(
            batch.input_ids_T, batch.position_ids_T, batch.token_type_ids_T, batch.cu_seqlens, batch.max_seqlen
        )
    inputs = {"input_ids": batch.input_ids_SL, "attention_mask": batch.attention_mask_SL}
    if batch.token_type_ids_SL is not None:
        inputs["token_type_ids"] = batch.token_type_ids_SL
    return inputs
